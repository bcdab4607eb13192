"""Speed and cost of generators: what is timed is what samples, and a call that cheats is caught."""

from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from tokenmark import build, plan, registry, suites
from tokenmark.contracts import GeneratorMethod
from tokenmark.errors import AuditError
from tokenmark.measures.cost import counted_macs
from tokenmark.tasks.asked import noise_of
from tokenmark.tasks.base import Context
from tokenmark.tasks.sampler import macs_of
from tokenmark.tasks.sampling import SamplingSession

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[3]
SUITE = """
version = 1
title = "speed"
protocol = "throughput"
batch_size = 1
timing = {{ batches = [1, 2], min_seconds = 0.01, min_rounds = 2 }}
jobs = [{{ task = "sampling", method = "titok-maskgit", variant = "mini-16", {rest} }}]
"""


def planned(tmp_path, rest='preset = "mini"'):
    path = tmp_path / "speed.toml"
    path.write_text(SUITE.format(rest=rest))
    (run,) = plan.plan(suites.load(path), "speed", Context(CPU, tmp_path), "here")
    assert run.problem is None, "drawn weights need no file"
    return run.spec


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_sampling_is_timed_and_counted(tmp_path, precision):
    spec = planned(tmp_path, f'preset = "mini", precision = "{precision}"')
    found = SamplingSession(spec, Context(CPU, tmp_path)).finish(str)
    values = {value.name: value for value in found.values}
    low, high = values["images_per_second"].interval
    assert 0 < low <= values["images_per_second"].value <= high
    assert values["latency_p50_ms"].value <= values["latency_p99_ms"].value
    assert values["steps"].value == 8
    assert values["parameters"].value == build.drawn_generator("titok-maskgit", "mini-16", CPU).parameters_total
    assert [point["batch"] for point in found.details["throughput"]] == [1, 2]
    assert spec.precision == precision


def test_macs_without_content_are_those_of_real_tensors():
    preset = registry.get("titok-maskgit").presets["mini"]
    real = build.drawn_generator("titok-maskgit", "mini-16", CPU)
    label = torch.zeros(1, dtype=torch.int64)
    with sdpa_kernel(SDPBackend.MATH):
        counted = counted_macs(lambda _: real.sample(label, [noise_of(0, 0)], preset.settings), label)
    assert macs_of("titok-maskgit", "mini-16", preset) == counted
    unguided = macs_of("titok-maskgit", "mini-16", registry.get("titok-maskgit").presets["mini-unguided"])
    assert unguided < counted < 2 * unguided, "one half of a batch, and the decoder once"


class Remembers:
    """Gives its first images for ever."""

    def __init__(self, generator):
        self.generator, self.kept = generator, None

    def __getattr__(self, name):
        return getattr(self.generator, name)

    def sample(self, *given):
        if self.kept is None:
            self.kept = self.generator.sample(*given)
        return self.kept if len(self.kept) == len(given[0]) else self.generator.sample(*given)

    def __deepcopy__(self, memo):
        return self.generator


def test_a_sampler_that_remembers_its_images_is_caught(tmp_path, monkeypatch):
    honest, _ = build.generator("titok-maskgit", "mini-16", "mini", CPU)  # with drawn weights images are nearly alike
    monkeypatch.setattr(build, "drawn_generator", lambda *_: Remembers(honest))
    with pytest.raises(AuditError, match="'sample' does not give"):
        SamplingSession(planned(tmp_path), Context(CPU, tmp_path)).finish(str)


def test_the_suite_times_every_generator_that_makes_images():
    suite = suites.load(ROOT / "suites/generator-throughput.toml")
    timed = {(job.method, job.variant, job.precision) for job in suite.jobs}
    for name in registry.locations():
        method = registry.get(name)
        if isinstance(method, GeneratorMethod):
            for size, variant in method.variants.items():
                preset = any(size in each.variants for each in method.presets.values())
                wanted = variant.weights is None and variant.tokenizer is not None and preset
                for precision in ("float32", "bfloat16"):
                    assert ((name, size, precision) in timed) == wanted, (name, size)
