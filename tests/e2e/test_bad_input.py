"""Mistakes and damage: status 2, and one clear line that says what to do."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.e2e.harness import JPEG, MASKGIT, ROOT, TOME, Place, write_suite

WORDS = [
    (JPEG.replace('"jpeg"', '"jpg"'), ["unknown method 'jpg'", "did you mean jpeg?"]),
    (JPEG.replace('"q50"', '"q51"'), ["unknown variant of jpeg 'q51'", "q50"]),
    (TOME.replace("r = 4", "rr = 4"), ["unknown setting of tome 'rr'", "did you mean r"]),
    (TOME.replace("r = 4", 'r = "many"'), ["setting r", "tome", "many"]),
    (TOME.replace("vit-mini", "vit-minni"), ["unknown model 'vit-minni'", "did you mean vit-mini?"]),
    (JPEG.replace('"jpeg"', '"tome"'), ["'tome' is a reducer, but a tokenizer is needed"]),
    (JPEG.replace('"ssim"', '"top1"'), ["jobs.0", "unknown measure of task reconstruction 'top1'"]),
    (JPEG.replace('"rfid"', '"rfdi"'), ["unknown measure", "did you mean rfid?"]),
    (JPEG.replace("variant", "varient"), ["jobs.0"]),
    (JPEG.replace("measures", "mesures"), ["jobs.0.mesures: unknown key", "did you mean 'measures'?"]),
    (JPEG.replace('"q50"', "50"), ["jobs.0.variant", "50"]),
    (JPEG.replace('"reconstruction"', '"reconstruct"'), ["jobs.0", "unknown task", "reconstruction"]),
    (TOME.replace(" }", ', batch_size = "20" }'), ["jobs.0"]),
    (JPEG + " x", ["is not TOML"]),
    (
        '{ task = "generation", method = "titok-maskgit", variant = "mini-16", preset = "minni", samples = 20 }',
        ["unknown preset of titok-maskgit 'minni'", "did you mean mini"],
    ),
]


@pytest.mark.parametrize(("job", "words"), WORDS, ids=[words[-1] for _, words in WORDS])
def test_mistake_in_a_suite(place: Place, job: str, words: list[str]):
    place.run(write_suite(place.folder / "small.toml", job)).mistake(*words)
    assert place.records() == {}


HEADS = [
    ('protocol = "mini"', 'protocol = "minni"', ["unknown protocol 'minni'", "mini"]),
    ("batch_size = 20", "batch_size = 0", ["batch_size", "0"]),
    ("batch_size = 20", "batchsize = 20", ["batch"]),
    ("version = 1", "version = 2", ["version", "2"]),
    ("min_rounds = 3", "min_rounds = 3.5", ["timing.min_rounds", "3.5"]),
    ('title = "Small"', 'title = "Small"\ntitel = "x"', ["titel: unknown key", "did you mean 'title'?"]),
]


@pytest.mark.parametrize(("right", "wrong", "words"), HEADS, ids=[wrong.splitlines()[-1] for _, wrong, _ in HEADS])
def test_mistake_at_the_head_of_a_suite(place: Place, right: str, wrong: str, words: list[str]):
    suite = write_suite(place.folder / "small.toml", JPEG)
    text = suite.read_text(encoding="utf-8")
    assert right in text
    suite.write_text(text.replace(right, wrong), encoding="utf-8")
    place.run(suite).mistake(*words)


def test_mistakes_on_the_command_line(place: Place):
    suite = write_suite(place.folder / "small.toml", JPEG)
    place.call("run", "smal", "--suites", str(place.folder)).mistake("unknown suite 'smal'", "did you mean small?")
    place.run(suite, "--method", "tome").mistake("unknown method in suite small 'tome'", "jpeg")
    place.run(suite, "--mehtod", "jpeg").mistake("--mehtod")
    place.call("rnu").mistake("unknown command 'rnu'", "did you mean 'run'?")
    place.call("show", "abcdef").mistake("no record", "abcdef")
    place.run(suite, "--device", "toaster").mistake("device 'toaster' cannot be used", "--device cpu")
    assert place.records() == {}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, so asking for one is no mistake")
def test_a_gpu_that_is_not_there(place: Place):
    suite = write_suite(place.folder / "small.toml", JPEG)
    place.run(suite, "--device", "cuda").mistake("device 'cuda' cannot be used", "--device cpu")


def test_a_results_folder_that_cannot_be_written(place: Place):
    suite = write_suite(place.folder / "small.toml", JPEG)
    (place.folder / "file").touch()
    for folder in (place.folder / "file" / "results", Path("/proc/results")):
        place.call("run", suite, "--results", folder, "--data", place.data).mistake("cannot write", str(folder))


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def altered(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [truncated, altered, Path.unlink])
@pytest.mark.parametrize("name", ["images.npy", "labels.npy"])
def test_damaged_data_are_found_out(place: Place, damage, name: str):
    original, place.data = place.data, place.folder / "data"
    shutil.copytree(original, place.data)
    damage(place.data / "digits-32" / "val" / name)
    suite = write_suite(place.folder / "small.toml", JPEG)
    place.run(suite).failed("failed jpeg q50", name, "is missing, truncated or altered: delete", "prepare it again")
    assert place.records() == {}


def test_data_without_a_manifest_were_never_prepared(place: Place):
    original, place.data = place.data, place.folder / "data"
    shutil.copytree(original, place.data)
    (place.data / "digits-32" / "val" / "manifest.json").write_text("{", encoding="utf-8")
    place.run(write_suite(place.folder / "small.toml", JPEG)).failed("failed jpeg q50", "is not a manifest: delete")


@pytest.mark.parametrize("damage", [truncated, altered, Path.unlink])
def test_damaged_weights_stop_only_what_needs_them(place: Place, damage):
    copy = place.folder / "copy"
    for package in ("tokenmark", "reference_impls"):
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    damage(copy / "reference_impls" / "weights" / "maskgit-vq-mini.safetensors")
    place.path = (copy,)
    suite = write_suite(place.folder / "small.toml", MASKGIT, JPEG)
    what = "is missing" if damage is Path.unlink else "was altered or is truncated"
    place.run(suite).failed("failed maskgit-vq mini", "maskgit-vq-mini.safetensors " + what, "1 measured")
    assert set(place.records()) == {"jpeg"}


def edited(path: Path) -> None:
    """A better number, whose author forgot the seal."""
    record = json.loads(path.read_bytes())
    record["values"][0]["value"] /= 2
    path.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def missing_picture(path: Path) -> None:
    path.with_suffix(".reconstructions.png").unlink()


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (truncated, "is not whole JSON"),
        (edited, "its seal does not match"),
        (missing_picture, "is missing or altered: restore it"),
        (lambda path: path.write_text("[]"), "has schema None"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "is not whole JSON"),
        (lambda path: path.write_text('{"schema_version": 2}'), "is not a record"),
    ],
    ids=["truncated", "edited", "picture", "list", "bytes", "empty"],
)
def test_damaged_record_is_named_and_kept(place: Place, finished: Place, damage, what: str):
    shutil.copytree(finished.results / "records", place.results / "records")
    [path] = (place.results / "records").glob("small/jpeg/*.json")
    damage(path)
    bytes_left = path.read_bytes()
    suite = write_suite(place.folder / "small.toml", JPEG, TOME)
    place.run(suite).failed("failed jpeg/q50", what, "0 measured, 1 already there, 1 failed")
    assert path.read_bytes() == bytes_left
    for verb in (["show"], ["leaderboard"], ["sync"]):
        place.call(*verb, "--results", place.results).mistake(path.stem[:12], what)
