"""Speed of tokenizers: what is timed is what encodes and decodes, and a call that cheats is caught."""

from pathlib import Path

import pytest
import torch

from tokenmark import build, plan, registry, suites
from tokenmark.contracts import TokenizerMethod
from tokenmark.errors import AuditError
from tokenmark.tasks.base import Context
from tokenmark.tasks.tokenization import BOTH, DECODE, ENCODE, TokenizationSession

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[3]
SUITE = """
version = 1
title = "speed"
protocol = "throughput"
batch_size = 1
timing = {{ batches = [1, 2], min_seconds = 0.01, min_rounds = 2 }}
jobs = [{jobs}]
"""


def planned(tmp_path, *jobs):
    lines = ", ".join(f'{{ task = "tokenization", {job} }}' for job in jobs)
    path = tmp_path / "speed.toml"
    path.write_text(SUITE.format(jobs=lines))
    return plan.plan(suites.load(path), "speed", Context(CPU, tmp_path), "here")


def outcome(tmp_path, job):
    (run,) = planned(tmp_path, job)
    assert run.problem is None
    return TokenizationSession(run.spec, Context(CPU, tmp_path)).finish(str)


@pytest.mark.parametrize(
    "job",
    [
        'method = "titok", variant = "mini-16"',
        'method = "maskgit-vq", variant = "mini", precision = "bfloat16"',
        'method = "mar-vae", variant = "mini"',
        'method = "jpeg", variant = "q50"',
    ],
)
def test_encoding_decoding_and_both_are_timed(tmp_path, job):
    found = outcome(tmp_path, job)
    values = {value.name: value for value in found.values}
    for name in (ENCODE, DECODE, BOTH):
        assert values[f"{name}_images_per_second"].value > 0
        low, high = values[f"{name}_images_per_second"].interval
        assert low <= values[f"{name}_images_per_second"].value <= high
        assert values[f"{name}_latency_p50_ms"].value <= values[f"{name}_latency_p99_ms"].value
    assert [point["batch"] for point in found.details["throughput"]] == [1, 2]
    assert "random" in found.details["weights"]


def test_precision_and_variant_name_the_run(tmp_path):
    job = 'method = "titok", variant = "l32"'
    both = planned(tmp_path, job, f'{job}, precision = "bfloat16"')
    assert all(run.problem is None for run in both), "drawn weights need no file"
    assert both[0].spec.run != both[1].spec.run
    assert both[0].spec.weights == both[0].spec.data == {}


class Remembers:
    """Gives its first answer for ever."""

    def __init__(self, tokenizer, what):
        self.tokenizer, self.info, self.what, self.kept = tokenizer, tokenizer.info, what, {}

    def encode(self, images, tokens=None, generator=None):
        made = self.tokenizer.encode(images, tokens, generator)
        return self.kept.setdefault("encode", made) if self.what == "encode" else made

    def decode(self, tokens):
        made = self.tokenizer.decode(tokens)
        return self.kept.setdefault("decode", made) if self.what == "decode" else made

    def __deepcopy__(self, memo):
        return self.tokenizer


@pytest.mark.parametrize(("what", "words"), [("encode", "of their codes only"), ("decode", "two decodings")])
def test_a_call_that_remembers_its_answer_is_caught(tmp_path, monkeypatch, what, words):
    honest = build.tokenizer("maskgit-vq", "mini", CPU)
    monkeypatch.setattr(build, "drawn_tokenizer", lambda *_: Remembers(honest, what))
    with pytest.raises(AuditError, match=words):
        outcome(tmp_path, 'method = "maskgit-vq", variant = "mini"')


def test_the_suite_times_every_size_of_every_tokenizer():
    """All that can encode with drawn weights alone."""
    suite = suites.load(ROOT / "suites/tokenizer-throughput.toml")
    jobs = {(job.method, job.variant, job.precision) for job in suite.jobs}
    needs_more = {"seed"}
    for name in registry.locations():
        method = registry.get(name)
        if not isinstance(method, TokenizerMethod) or name in needs_more:
            continue
        for size, variant in method.variants.items():
            plain = "quality" in variant.config or variant.weights is not None
            told = (name, size) == ("cat", "adaptive") or (name == "textok" and not size.endswith("plain"))
            for precision in ("float32", "bfloat16"):
                assert ((name, size, precision) in jobs) != (plain or told), (name, size)
