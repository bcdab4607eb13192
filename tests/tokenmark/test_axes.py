"""Every axis of a protocol is live: two protocols that differ in it alone give different numbers on made images.

Reconstructions and samples come from stand-ins, so that what must be measured can be said; all else is the whole way
from a suite to a record, or `tokenmark fid`.
"""

import dataclasses
import functools
import itertools
import re
from unittest.mock import create_autospec

import numpy as np
import pytest
import torch

from tests.tokenmark import make
from tests.tokenmark.data import made_imagenet
from tests.tokenmark.extractors.conftest import pictures
from tokenmark import build, fid, plan, protocols, provenance, resize, runner, suites
from tokenmark.contracts import Preset, TokenizerInfo, Tokens
from tokenmark.data import prepare, prepared
from tokenmark.data.catalog import parts
from tokenmark.data.crops import CROPS
from tokenmark.data.imagenet import COLLECTIONS, prepared_name
from tokenmark.errors import DataError
from tokenmark.files import sha256_of
from tokenmark.networks import Given
from tokenmark.number_types import number_types
from tokenmark.protocols.base import MEANINGS, Protocol
from tokenmark.splits import ANY_CROP
from tokenmark.store import Results
from tokenmark.tasks import generation, reconstruction
from tokenmark.tasks.base import Context

CPU = torch.device("cpu")
WORDS = {"id", "version", "title", "comparable_with", "used_by", "differs"}
AXES = sorted(set(Protocol.model_fields) - WORDS)
SIDE, VAL, TRAIN, CLASSES, BATCH, SAMPLES = 32, 24, 40, 4, 8, 20
MADE = protocols.get("mini").but(id="made", samples=None, classes=CLASSES)
"""The protocol from which every test goes one step aside."""
RECONSTRUCTION = {
    "task": "reconstruction",
    "method": "titok",
    "variant": "mini-16",
    "measures": ["rfid", "psnr", "inception-score"],
}
GENERATION = {
    "task": "generation",
    "method": "titok-maskgit",
    "variant": "mini-16",
    "preset": "mini",
    "measures": ["gfid", "inception-score"],
}
FADE = 0.9713
"""Of no grey level does it make a tie."""


class Faded(torch.nn.Module):
    """A tokenizer that gives every image back a little darker, by a convolution; noisy where it is told to be."""

    def __init__(self):
        super().__init__()
        self.info = TokenizerInfo(SIDE, 1, (2,), 1.0, variable_length=False, stochastic=False, parameters=9)
        self.convolution = torch.nn.Conv2d(3, 3, 1, bias=False)
        self.convolution.weight = torch.nn.Parameter(FADE * torch.eye(3)[..., None, None], requires_grad=False)
        self.seeds, self.tf32 = [], []

    def encode(self, images, tokens=None, generator=None):
        self.tf32.append((torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32))
        if generator is not None:
            self.seeds.append(generator.initial_seed())
            images = images + 0.05 * torch.randn(images.shape, generator=generator)
        ones = torch.ones(len(images), dtype=torch.int64)
        return Tokens(ones, ones.double(), latents=images[:, None])

    def decode(self, tokens):
        return self.convolution(tokens.latents[:, 0]).clamp(0, 1)


class Shades:
    """A generator whose samples are a shade by class with some noise of their own."""

    parameters_total = 3

    def __init__(self):
        self.labels = []

    def sample(self, labels, generators, settings, prompts=None):
        self.labels += labels.tolist()
        noise = torch.stack([torch.rand(3, SIDE, SIDE, generator=generator) for generator in generators])
        return labels.view(-1, 1, 1, 1) / 10 + 0.1 * noise


def levels(*shape_like):
    """Made images `(N, H, W, 3)`, uint8."""
    return pictures(*shape_like).permute(0, 2, 3, 1).numpy()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Prepared data: made images under the digits' name, others under another, and four crops of made photographs."""
    root = tmp_path_factory.mktemp("data")
    pixels = levels(SIDE, TRAIN + 2 * VAL)
    places = {("digits-32", "train"): (0, TRAIN), ("digits-32", "val"): (TRAIN, TRAIN + VAL)}
    places["other-32", "val"] = (TRAIN + VAL, len(pixels))
    for (name, split), (start, stop) in places.items():
        labels = np.arange(stop - start) % CLASSES
        facts = {"name": name, "split": split, "source": "made", "crop": "none"}
        prepared.write(root / name / split, pixels[start:stop], labels, **facts)
    files = tuple(made_imagenet.File(number, made_imagenet.rgb(number, 700, 560)) for number in (1, 500, 999))
    source = made_imagenet.write_hub_flat(root / "photographs", files)
    watcher = create_autospec(prepare.Watcher, instance=True)
    for crop, side in (
        ("adm", 256),
        ("bicubic", 256),
        ("bicubic", 512),
        ("bicubic", 224),
        ("bicubic-875", 224),
        ("bicubic-900", 224),
    ):
        wanted = prepare.Request(COLLECTIONS["imagenet-val"], source, root, side, crop, allow_subset=True)
        prepare.prepare(wanted, watcher)
    return root


@pytest.fixture
def faded(monkeypatch):
    """The stand-in for every tokenizer."""
    module = Faded()
    monkeypatch.setattr(build, "tokenizer", lambda *_: module)
    return module


@pytest.fixture
def shades(monkeypatch):
    """The stand-in for every generator."""
    maker = Shades()
    preset = Preset(settings="settings", variants=("mini-16",))
    monkeypatch.setattr(build, "generator", lambda *_: (maker, preset))
    return maker


@pytest.fixture
def measured(folder, tmp_path, monkeypatch):
    """Values by name of one job under a protocol: planned, run and written down as every job is."""

    def call(protocol, job):
        monkeypatch.setitem(protocols.PROTOCOLS, protocol.id, protocol)
        # these two take longer than the rest of such a run
        monkeypatch.setattr(provenance, "environment", lambda _: make.environment())
        for task in (generation, reconstruction):
            monkeypatch.setattr(task, "grid", lambda *_: b"picture")
        timing = {"batches": [1], "min_seconds": 1.0, "min_rounds": 2}
        facts = {"version": 1, "title": "Axes", "protocol": protocol.id, "batch_size": BATCH, "timing": timing}
        context = Context(CPU, folder)
        planned = plan.plan(suites.Suite.model_validate({**facts, "jobs": [job]}), "axes", context, "site-made")
        watcher = create_autospec(runner.Watcher, instance=True)
        summary = runner.run_all(planned, Results(tmp_path), context, watcher)
        for _, error in (*summary.failures, *summary.missing):
            raise error
        (record,) = summary.records
        return {value.name: value for value in record.values}

    return call


@pytest.fixture
def reconstructed(measured, faded):
    return lambda **changes: measured(MADE.but(**changes), RECONSTRUCTION)


@pytest.fixture
def generated(measured, shades):
    job = {**GENERATION, "samples": SAMPLES}
    return lambda **changes: measured(MADE.but(**changes), job)


@pytest.fixture(scope="module")
def distance(inception_file, tmp_path_factory):
    """`tokenmark fid` of two made sets that are larger than Inception's images, with drawn weights."""
    root = tmp_path_factory.mktemp("sets")
    pixels = levels(330, 4)
    for name, part in (("a", pixels[:2]), ("b", np.roll(pixels[2:], 5, axis=1))):
        np.save(root / f"{name}.npy", part)
    weights = Given(inception_file, sha256_of(inception_file))
    base = protocols.get("torch-fidelity")

    @functools.cache
    def found(protocol):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(protocols.PROTOCOLS, protocol.id, protocol)
            (row,) = fid.run(root / "a.npy", root / "b.npy", [protocol.id], weights, CPU, 2)
        return next(value.value for value in row.values if value.name == "fid")

    return lambda **changes: found(base.but(id="made", **changes))


@pytest.mark.parametrize("axis", AXES)
def test_every_axis_is_shown_live(axis):
    """Whoever adds an axis shows here that it moves a number."""
    assert callable(globals().get(f"test_{axis}"))


def all_differ(numbers, by=1e-4):
    ordered = sorted(numbers)
    assert all(after - before > by * abs(after) for before, after in itertools.pairwise(ordered)), ordered
    return True


def darker(pixels, rule=np.round):
    """PSNR of images and what the stand-in and a rule make of them, by hand."""
    seen = rule(pixels / 255.0 * FADE * 255.0) / 255.0
    errors = ((seen - pixels / 255.0) ** 2).mean(axis=(1, 2, 3))
    return float((-10.0 * np.log10(errors)).mean())


def test_data(reconstructed, folder):
    one, other = (reconstructed(data=name) for name in ("digits-32", "other-32"))
    assert all_differ([one["rfid"].value, other["rfid"].value])
    for name, found in (("digits-32", one), ("other-32", other)):
        assert found["psnr"].value == pytest.approx(darker(np.load(folder / name / "val" / "images.npy")), abs=1e-3)


def test_reconstruction_reference(reconstructed, folder):
    one, other = (reconstructed(reconstruction_reference=split) for split in ("val", "train"))
    assert all_differ([one["rfid"].value, other["rfid"].value])
    for split, found in (("val", one), ("train", other)):
        pixels = np.load(folder / "digits-32" / split / "images.npy")
        assert found["psnr"].n == len(pixels)
        assert found["psnr"].value == pytest.approx(darker(pixels), abs=1e-3)


def test_generation_reference(generated):
    one, other = (generated(generation_reference=split) for split in ("train", "val"))
    assert all_differ([one["gfid"].value, other["gfid"].value])
    assert one["inception_score"] == other["inception_score"], "the same samples"


def test_samples(measured, reconstructed, shades):
    whole, some = reconstructed(), reconstructed(samples=16)
    assert (whole["rfid"].n, some["rfid"].n) == (VAL, 16)
    assert all_differ([whole["rfid"].value, some["rfid"].value])
    more, fewer = (measured(MADE.but(samples=n), GENERATION) for n in (20, 12))
    assert (more["gfid"].n, fewer["gfid"].n) == (20, 12)
    assert all_differ([more["gfid"].value, fewer["gfid"].value])


NAMES = sorted(set(MEANINGS["crop"]) - set(ANY_CROP))


def test_crop(measured, faded, folder):
    found = {}
    for crop in NAMES:
        rule, side = re.fullmatch(r"(.*)-(\d+)", crop).groups()
        data = prepared_name("imagenet-val", int(side), rule)
        assert prepared.load(folder / data / "val").manifest.crop == crop
        faded.info = dataclasses.replace(faded.info, image_size=int(side))
        found[crop] = measured(MADE.but(data=data, crop=crop), {**RECONSTRUCTION, "measures": ["psnr"]})["psnr"].value
    assert all_differ(found.values(), by=1e-6)


def test_pixels_of_another_crop_are_refused(measured, faded):
    with pytest.raises(DataError, match="imagenet-val-256-adm/val was cropped by adm-256, but protocol made takes bic"):
        measured(MADE.but(data="imagenet-val-256-adm", crop="bicubic-256"), RECONSTRUCTION)


@pytest.mark.parametrize("protocol", protocols.PROTOCOLS.values(), ids=lambda protocol: protocol.id)
def test_a_protocol_s_data_are_of_its_crop(protocol):
    if protocol.data is not None and protocol.data.startswith("imagenet"):
        _, side, rule = parts(protocol.data)
        assert protocol.crop == f"{rule}-{side}"
    if protocol.crop not in ANY_CROP:
        assert re.fullmatch(r"(.*)-\d+", protocol.crop)[1] in CROPS


def test_uint8_rule(reconstructed, faded, folder):
    by_hand = {"round": np.round, "half-up": lambda x: np.floor(x + 0.5), "truncate": np.floor, "none": lambda x: x}
    assert set(by_hand) == set(MEANINGS["uint8_rule"])
    found = {rule: reconstructed(uint8_rule=rule) for rule in by_hand}
    pixels = np.load(folder / "digits-32" / "val" / "images.npy").astype(np.float64)
    for rule, values in found.items():
        assert values["psnr"].value == pytest.approx(darker(pixels, by_hand[rule]), abs=2e-3)
    assert all_differ(found[rule]["rfid"].value for rule in ("round", "truncate", "none"))
    assert found["truncate"]["psnr"].value < found["round"]["psnr"].value - 0.5, "half a grey level darker"
    assert found["half-up"]["rfid"].value == found["round"]["rfid"].value, "without ties they are one rule"
    faded.convolution.weight.mul_(0.5 / FADE)
    assert all_differ(reconstructed(uint8_rule=rule, seed=1)["rfid"].value for rule in ("round", "half-up"))


def test_port(distance):
    assert all_differ(
        [distance(feature_resize="half-pixel"), distance(feature_resize="half-pixel", port="pytorch-fid")]
    )


def test_feature_resize(distance):
    assert all_differ([distance(feature_resize="tf1"), distance(feature_resize="half-pixel")])
    # the others by what the network would see: a pass of Inception takes a second
    images = pictures(330).float()
    seen = {name: resize.get(name)(images, 299) for name in MEANINGS["feature_resize"] if name != "none"}
    assert seen.keys() == resize.RESIZES.keys()
    for one, other in itertools.combinations(seen.values(), 2):
        assert (one - other).abs().mean() > 0.1, "grey levels"


def test_feature_dtype(distance):
    """The numbers differ by rounding, and by no more."""
    single, double = distance(), distance(feature_dtype="float64")
    assert 0.0 < abs(single / double - 1.0) < 1e-3


@pytest.mark.parametrize("tf32", [False, True])
def test_tf32(reconstructed, faded, tf32):
    """On a processor nothing computes in TF32, but the flags are in force around everything, and set back after."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    reconstructed(tf32=tf32)
    assert set(faded.tf32) == {(tf32, tf32)}
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before


@pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 0),
    reason="only an NVIDIA GPU from Ampere on computes in TF32; that the flags are set is tested above",
)
def test_tf32_moves_a_product():
    x = torch.randn(512, 512, generator=torch.Generator().manual_seed(0)).cuda()
    found = {}
    for tf32 in (False, True):
        with number_types(MADE.but(tf32=tf32)):
            found[tf32] = (x @ x).double().cpu()
    exact = x.double().cpu() @ x.double().cpu()
    assert (found[True] - exact).abs().max() > 10 * (found[False] - exact).abs().max() > 0


def test_order(reconstructed):
    scores = [reconstructed(order=order, inception_splits="ten")["inception_score"] for order in MEANINGS["order"]]
    assert all_differ(score.value for score in scores)
    scores = [reconstructed(order=order)["inception_score"] for order in MEANINGS["order"]]
    assert scores[0] == scores[1], "one split of all images knows no order"


def test_inception_splits(reconstructed):
    one, ten = (reconstructed(inception_splits=splits) for splits in ("one", "ten"))
    assert ten["inception_score"].value < one["inception_score"].value, "fewer images a split know fewer classes"
    assert one["rfid"] == ten["rfid"]
    # what takes 10,000 images to show
    assert [MADE.but(inception_splits=splits).splits(50_000) for splits in ("one", "ten", "of-5000")] == [1, 10, 10]
    assert [MADE.but(inception_splits=splits).splits(10_000) for splits in ("one", "ten", "of-5000")] == [1, 10, 2]


def test_class_sampling(generated, shades):
    balanced = generated()
    assert shades.labels[:SAMPLES] == list(range(CLASSES)) * (SAMPLES // CLASSES)
    shades.labels.clear()
    drawn = generated(class_sampling="random")
    assert len({shades.labels[:SAMPLES].count(label) for label in range(CLASSES)}) > 1
    assert all_differ([balanced["gfid"].value, drawn["gfid"].value])
    with pytest.raises(DataError, match="says no classes to sample"):
        generated(class_sampling="as-given")


def test_classes(generated, shades):
    four, ten = generated(), generated(classes=10)
    assert max(shades.labels) == 9
    assert all_differ([four["gfid"].value, ten["gfid"].value])


def test_seed(generated, reconstructed):
    assert all_differ(generated(seed=seed)["gfid"].value for seed in (0, 1))
    assert all_differ(
        reconstructed(seed=seed, order="shuffled", inception_splits="ten")["inception_score"].value for seed in (0, 1)
    )


def test_model_precision(reconstructed, folder):
    exact, half = (reconstructed(model_precision=precision) for precision in ("float32", "bfloat16-autocast"))
    assert all_differ([exact["rfid"].value, half["rfid"].value])
    pixels = torch.from_numpy(np.load(folder / "digits-32" / "val" / "images.npy"))
    rounded = (pixels.float() / 255.0).bfloat16() * torch.tensor(FADE).bfloat16()
    seen = (rounded.double() * 255.0).round() / 255.0
    errors = (seen - pixels.double() / 255.0).square().mean(dim=(1, 2, 3))
    assert half["psnr"].value == pytest.approx(float((-10.0 * errors.log10()).mean()), abs=1e-3)


def test_stochastic_encoder(reconstructed, faded):
    """It has one meaning that gives numbers; the other leaves the noise to others, which a run cannot."""
    without = reconstructed()
    faded.info = dataclasses.replace(faded.info, stochastic=True)
    drawn = reconstructed(seed=5)
    assert all_differ([without["rfid"].value, drawn["rfid"].value])
    assert faded.seeds[:3] == [5, 5 + BATCH, 5 + 2 * BATCH]
    with pytest.raises(DataError, match="protocol made says no noise for a stochastic tokenizer"):
        reconstructed(stochastic_encoder="as-given")
