"""What methods are made of, against counts of real tensors, closed forms and the vectors' manifests."""

import json
from pathlib import Path

import pytest
import torch

from tests.tokenmark import make
from tokenmark import build, jobs, protocols, registry, suites
from tokenmark.errors import MethodError, SuiteError, UnknownNameError
from tokenmark.measures.cost import counted_macs
from tokenmark.suites import StructureJob, Suite
from tokenmark.tasks.base import Context
from tokenmark.tasks.structure import STRUCTURE

VECTORS = Path(__file__).parents[2] / "vectors"
ROOT = Path(__file__).parents[3]


def counted(**changes) -> dict[str, float]:
    facts = {"suite": "structure", "task": "structure", "protocol": "structure", "samples": 0, "data": {}}
    spec = make.spec(**{**facts, "measures": ("size", "cost"), "variant": None, **changes})
    session = STRUCTURE.open(spec, Context(torch.device("cpu"), Path()))
    assert session.total == 0
    return {value.name: value.value for value in session.finish(lambda _phase: None).values}


def test_a_tokenizer_is_counted_as_its_real_tensors_are():
    found = counted(method="maskgit-vq", variant="mini")
    real = build.drawn_tokenizer("maskgit-vq", "mini", torch.device("cpu"))
    assert found["parameters"] == sum(parameter.numel() for parameter in real.parameters())
    assert found["state_entries"] == len(real.state_dict())
    image = torch.rand(1, 3, 32, 32)
    tokens = real.encode(image)
    assert found["encode_macs"] == counted_macs(lambda images: real.encode(images).codes, image)
    assert found["decode_macs"] == counted_macs(lambda _images: real.decode(tokens), image)
    assert found["macs"] == found["encode_macs"] + found["decode_macs"]


@pytest.mark.parametrize(
    ("method", "variant", "wanted"),
    [
        # 32 tokens of log2 4096 = 12 bits; 24 * 256^2 / 384
        ("titok", "l32", {"tokens": 32, "bits_per_image": 384, "compression_ratio": 4096, "code_width": 12}),
        ("titok", "bl64-vae", {"tokens": 64, "latent_width": 16, "latent_size": 1024, "bits_per_token": 512}),
        ("llamagen-vq", "vq-16", {"tokens": 256, "codebook_size": 16384, "bits_per_pixel": 3584 / 65536}),
    ],
)
def test_what_a_code_holds(method, variant, wanted):
    found = counted(method=method, variant=variant)
    assert {name: found[name] for name in wanted} == wanted


def test_a_shorter_code_is_counted_as_what_it_is():
    whole, short = (counted(method="one-d-piece", variant="mini-16", tokens=tokens) for tokens in (None, 4))
    assert (whole["tokens"], short["tokens"]) == (16, 4)
    assert short["bits_per_image"] == 4 * 8
    assert short["decode_macs"] < whole["decode_macs"]


@pytest.mark.parametrize(
    ("method", "variant", "manifest"),
    [("titok", "l32", "titok__l32"), ("one-d-piece", "s256", "one-d-piece__s-256"), ("titok", "s128", "titok__s128")],
)
def test_a_releases_manifest_has_as_many_tensors_and_numbers(method, variant, manifest):
    shapes = json.loads((VECTORS / f"{manifest}.manifest.json").read_text())["parameters"].values()
    found = counted(method=method, variant=variant, measures=("size",))
    assert found["state_entries"] == len(shapes)
    assert found["parameters"] == sum(torch.Size(shape).numel() for shape in shapes)


def test_a_plain_transformer_costs_what_the_formula_says():
    found = counted(method="none", model="deit_small_patch16_224.random", measures=("size", "cost"))
    d, n = 384, 197
    assert found["macs"] == 196 * 768 * d + 12 * (4 * n * d * d + 2 * n * n * d + 8 * n * d * d) + 1000 * d
    assert found["macs"] == pytest.approx(4.599e9, rel=2e-4)  # as published: 4.6
    assert found["macs_ratio"] == 1


def test_reduction_costs_what_its_token_counts_say():
    found = counted(method="tome", model="deit_small_patch16_224.random", settings={"r": 13})
    d, counts = 384, [197 - 13 * block for block in range(13)]
    attention = sum(4 * n * d * d + 2 * n * n * d for n in counts[:-1])
    mlp = sum(8 * n * d * d for n in counts[1:])
    assert found["macs"] == 196 * 768 * d + attention + mlp + 1000 * d
    assert found["tokens_left"] == counts[-1] == 41
    assert found["macs_total"] == found["macs"] + found["macs_method"]


def test_a_cost_that_depends_on_the_image_is_given_as_a_bound_alone():
    found = counted(method="ats", model="vit-mini")
    assert "macs" not in found
    assert "tokens_left" not in found
    assert found["macs_most"] > 0


def test_a_model_that_reducers_do_not_serve_is_counted_unreduced():
    found = counted(method="none", model="davit_tiny.random")
    assert found["parameters"] == 28_360_168
    assert found["macs"] > 1e9


def test_a_reducer_of_such_a_model_is_refused():
    with pytest.raises(MethodError, match="not served"):
        counted(method="tome", model="davit_tiny.random", settings={"r": 1})


def test_a_classifier_of_its_own_architecture():
    found = counted(method="t2t-vit", variant="t2t-vit-14")
    assert found["parameters"] == pytest.approx(21.5e6, abs=5e4)  # as published: 21.5 M
    assert found["image_size"] == 224


def test_what_depends_on_values_says_so():
    with pytest.raises(MethodError, match=r"cannot be counted from shapes; give its job measures = \['size'\]"):
        counted(method="gaussiantoken", variant="cifar-64")


@pytest.mark.parametrize(
    ("job", "error", "says"),
    [
        ('method = "titok", variant = "l23"', UnknownNameError, "did you mean l32"),
        ('method = "titok"', SuiteError, "name either a model, or a variant"),
        ('method = "titok", variant = "l32", settings = { r = 1 }', SuiteError, "leave settings out"),
        ('method = "tome", model = "vit-mini", settings = { s = 1 }', UnknownNameError, "'s'"),
        ('method = "jpge", variant = "q10"', UnknownNameError, "jpeg"),
    ],
)
def test_jobs_that_cannot_be(tmp_path, job, error, says):
    text = f'version = 1\ntitle = "t"\nprotocol = "structure"\nbatch_size = 1\njobs = [{{ task = "structure", {job} }}]'
    (tmp_path / "s.toml").write_text(text)
    with pytest.raises(error, match=says):
        jobs.check_names(suites.load(tmp_path / "s.toml"))


def test_the_suite_holds_every_official_size_and_its_names_exist():
    suite: Suite = suites.load(ROOT / "suites/structure.toml")
    jobs.check_names(suite)
    assert protocols.get(suite.protocol).data == "none"
    held = {(job.method, job.variant) for job in suite.jobs if isinstance(job, StructureJob)}
    for name in registry.locations():
        method = registry.get(name)
        if registry.kind_of(method) in {"tokenizer", "generator"} and name not in {"jpeg", "webp", "avif"}:
            official = {size for size, variant in method.variants.items() if not size.startswith("mini")}
            assert {(name, variant) for variant in official} <= held
