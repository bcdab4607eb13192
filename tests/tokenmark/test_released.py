"""A released tokenizer from its file on the shelf to a measurement's plan: by official names, strictly, and as data."""

import dataclasses
import shutil
from collections import defaultdict

import pytest
import safetensors.torch
import timm
import torch
from rich.console import Console

from reference_impls.layers.dinov2 import Foundation
from reference_impls.tokenizers.titok import METHOD, MINI_CONFIG, TiTok, release_arguments
from tests import vector_case
from tests.tokenmark import make
from tests.tokenmark.test_weights import Harm
from tokenmark import build, catalogue, pins, plan, registry, runner, suites, weights
from tokenmark.contracts import GeneratorMethod, Release, TokenizerMethod, Variant
from tokenmark.display import Display
from tokenmark.errors import MissingWeightsError, WeightsError
from tokenmark.files import sha256_of
from tokenmark.pins import Pin
from tokenmark.shelf import Shelf
from tokenmark.store import Results
from tokenmark.tasks.base import Context

CPU = torch.device("cpu")
VECTOR = vector_case.load("titok__legacy-tiny")
CONFIG = release_arguments(VECTOR["config"])
SAFE = Release("made/titok", sha256=make.digest("published"))
PICKLE = Release("made/titok", "titok.bin")


@pytest.fixture(scope="module")
def module():
    """TiTok of the vector's sizes, filled by the release's names."""
    return vector_case.fill(TiTok(**CONFIG), VECTOR).float()


@pytest.fixture
def shelf(tmp_path, module, monkeypatch):
    """A shelf with what a release of that module would be, in both kinds of file."""
    variants = {"safe": Variant(CONFIG, release=SAFE), "pickle": Variant(CONFIG, release=PICKLE)}
    made = dataclasses.replace(METHOD, variants={**METHOD.variants, **variants})
    get = registry.get
    monkeypatch.setattr(registry, "get", lambda name: made if name == "titok" else get(name))
    shelf = Shelf(tmp_path / "shelf")
    write(shelf, module.state_dict())
    return shelf


def write(shelf, state):
    folder = shelf.folder / "made--titok"
    folder.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(state, folder / "model.safetensors")
    torch.save(state, folder / "titok.bin")
    pins.add(shelf.folder, {SAFE.key: Pin(sha256=sha256_of(folder / "model.safetensors"))})


@pytest.mark.parametrize("variant", ["safe", "pickle"])
def test_it_tokenizes_as_it_was_published(shelf, module, variant):
    built = build.tokenizer("titok", variant, CPU, shelf)
    images = vector_case.inputs(VECTOR)["image"].float()
    codes = module.encode(images)
    assert torch.equal(built.encode(images).codes, codes.codes)
    assert torch.equal(built.decode(codes), module.decode(codes))


@pytest.mark.parametrize("variant", ["safe", "pickle"])
def test_other_keys_or_shapes_are_listed(shelf, module, variant):
    state = module.state_dict()
    state["quantise.embedding.weight"] = state.pop("quantize.embedding.weight")
    state["latent_tokens"] = state["latent_tokens"][1:].clone()
    write(shelf, state)
    with pytest.raises(WeightsError) as error:
        build.tokenizer("titok", variant, CPU, shelf)
    message = str(error.value)
    assert "1 missing (quantize.embedding.weight); 1 unexpected (quantise.embedding.weight)" in message
    assert "1 mis-shaped (latent_tokens (9, 64) for (10, 64))" in message


def test_code_in_a_pickle_is_not_run(shelf, module, capsys):
    torch.save({**module.state_dict(), "latent_tokens": Harm()}, shelf.folder / "made--titok" / "titok.bin")
    with pytest.raises(WeightsError, match=r"titok\.bin cannot be read as tensors alone"):
        build.tokenizer("titok", "pickle", CPU, shelf)
    assert "executed" not in capsys.readouterr().out


TIMING = {"batches": [1], "min_seconds": 0.5, "min_rounds": 3}


def suite(*variants):
    jobs = [{"task": "reconstruction", "method": "titok", "variant": name, "measures": ["psnr"]} for name in variants]
    facts = {"version": 1, "title": "Made", "protocol": "mini", "batch_size": 50}
    return suites.Suite.model_validate({**facts, "timing": TIMING, "jobs": jobs})


def test_a_run_names_the_bytes_and_what_is_not_the_published_file(shelf, context):
    planned = plan.plan(suite("safe", "pickle", "l32"), "made", Context(CPU, context.data, shelf), "site")
    safe, pickled, missing = planned
    place = shelf.folder / "made--titok"
    assert safe.spec.weights["made/titok/model.safetensors"] == sha256_of(place / "model.safetensors")
    assert "made/titok/model.safetensors is not the published file" in safe.warnings[0]
    assert (pickled.spec.weights["made/titok/titok.bin"], pickled.warnings) == (sha256_of(place / "titok.bin"), ())
    assert missing.spec is None
    assert isinstance(missing.problem, MissingWeightsError)
    assert "`tokenmark weights fetch titok/l32`" in str(missing.problem)


class Told(Display):
    """What a run tells, in its order."""

    def __init__(self):
        super().__init__(Console(quiet=True))
        self.lines = []

    def start(self, title, total, done):
        self.lines.append(title)

    def missing(self, title, error):
        self.lines.append(str(error))


def test_a_record_names_its_weights_and_warns_of_others_than_the_published(tmp_path, context, monkeypatch):
    """What is missing is told before anything is measured, and holds nobody up."""
    release = Release("made/mini", sha256=make.digest("published"))
    own = weights.bundled("reference_impls", "titok-mini-16")
    variants = {"own": Variant(MINI_CONFIG, release=release), "absent": Variant(MINI_CONFIG, release=SAFE)}
    get = registry.get
    made = dataclasses.replace(METHOD, variants=variants)
    monkeypatch.setattr(registry, "get", lambda name: made if name == "titok" else get(name))
    shelf = Shelf(tmp_path / "shelf")
    shelf.places(release)[0].parent.mkdir(parents=True)
    shutil.copy(own.path, shelf.places(release)[0])
    pins.add(shelf.folder, {release.key: Pin(sha256=own.sha256)})
    here = Context(CPU, context.data, shelf)
    results, told = Results(tmp_path / "results"), Told()
    with results.locked():
        summary = runner.run_all(plan.plan(suite("own", "absent"), "made", here, "site"), results, here, told)
    (record,) = summary.records
    assert record.spec.weights["made/mini/model.safetensors"] == own.sha256
    assert record.warnings == (
        f"not comparable: made/mini/model.safetensors is not the published file (its SHA-256 is {own.sha256})",
    )
    assert "titok/absent has no weights here" in told.lines[0]
    assert told.lines[1:] == ["titok/own"]


def test_every_variant_has_a_state_and_a_place_for_it():
    """A variant names bundled weights, or a release, or says in words where its weights are or that there are none."""
    for name in registry.locations():
        method = registry.get(name)
        if isinstance(method, TokenizerMethod | GeneratorMethod) and name not in ("avif", "jpeg", "webp"):
            for size, variant in method.variants.items():
                assert variant.weights is None or variant.release is None, (name, size)
                assert variant.weights or variant.release or variant.note, (name, size)


def test_a_file_is_of_one_architecture():
    """Sizes that name the same file differ in the images that they take, and in nothing that has weights."""
    sharing = defaultdict(list)
    for method in map(registry.get, registry.locations()):
        if isinstance(method, TokenizerMethod):
            for variant in (each for each in method.variants.values() if each.release is not None):
                sharing[variant.release.key].append((method, variant))
    for key, sizes in sharing.items():
        shapes = []
        for method, variant in sizes if len(sizes) > 1 else ():
            with torch.device("meta"):
                state = method.build(**variant.config).state_dict()
            shapes.append({name: tuple(value.shape) for name, value in state.items()})
        assert all(each == shapes[0] for each in shapes), key


def test_a_part_that_a_release_leaves_out_comes_from_its_own():
    """DINOv2 inside VFMTok, under timm's keys, as its hub has them."""
    size = {"img_size": 56, "input": 56, "dim": 24, "depth": 2, "heads": 2, "registers": 4}
    torch.manual_seed(0)
    theirs = timm.create_model(
        "vit_small_patch14_reg4_dinov2", img_size=56, embed_dim=24, depth=2, num_heads=2, num_classes=0
    ).eval()
    foundation = Foundation(separate=True, **size).eval()
    foundation.load(theirs.state_dict())
    images = torch.rand(2, 3, 56, 56)
    (ours,) = foundation.pretrained_encoder(images, (1,))
    with torch.no_grad():
        expected = theirs.forward_features(images)
    torch.testing.assert_close(ours, torch.cat([expected[:, :1], expected[:, 5:]], dim=1), rtol=1e-4, atol=1e-5)


def test_parts_have_names_that_can_be_asked_for(tmp_path):
    with pytest.raises(MissingWeightsError, match="vfmtok/dinov2 has no weights here"):
        build.tokenizer("vfmtok", "dinov2", CPU, Shelf(tmp_path))
    assert catalogue.get("part-dinov2-vitl14-reg4").repo == "timm/vit_large_patch14_reg4_dinov2.lvd142m"
    suite = tmp_path / "one.toml"
    suite.write_text(
        'version = 1\ntitle = "one"\nprotocol = "titok-val50k"\nbatch_size = 1\n'
        "timing = { batches = [1], min_seconds = 1.0, min_rounds = 2 }\n"
        'jobs = [{ task = "reconstruction", method = "selftok", variant = "renderer-512", measures = ["psnr"] }]\n'
    )
    assert catalogue.expanded(["one"], tmp_path) == ["selftok/renderer-512", "part-sd3-medium-vae"]
