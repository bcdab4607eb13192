"""The ImageNet suites on a made ImageNet with made weights: one command, from pictures to records."""

import json
import re
from pathlib import Path

import pytest

from tests.e2e import made_release
from tests.e2e.harness import ROOT, Place
from tests.long import takes_long
from tests.tokenmark.data import made_imagenet as made

pytestmark = takes_long
SUITES = {
    "reconstruction": "reconstruction-256",
    "generation": "generation-256",
    "classification": "classification",
    "throughput": "imagenet-throughput",
}
LIMIT = 4
OWN = {
    "reconstruction": '  { task = "reconstruction", method = "made-vq", variant = "256" },\n',
    "generation": '  { task = "generation", method = "made-maskgit", variant = "256", preset = "made-paper" },\n',
    "classification": "",
    "throughput": '  { task = "classification", method = "tome", model = "test_vit.random", settings = { r = 4 } },\n',
}
"""The jobs of the stranger's package, and a small model to time."""
LEFT_OUT = re.compile(
    r'_patch16_224\.random"|webp|avif|q50-256|model = "(vit|deit_base)|deit_tiny.*r = (8|16)'
    r'|method = "(?!(none|tome)").*model = "deit_|method = "none".*deit_tiny|budget ='
    r'|task = "generation", method = "(?!titok-maskgit")'
)


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,000 class folders with two pictures each, of odd sizes and modes. Only to be read."""
    contents = [file.data for file in made.files()] + [made.rgb(seed, 260 + 17 * seed, 210) for seed in range(9)]
    files = tuple(made.File(1 + 24 * place, contents[place % len(contents)]) for place in range(2000))
    return made.write_class_folders(tmp_path_factory.mktemp("imagenet") / "val", files).parent


@pytest.fixture(scope="module")
def suites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The suites as they are, with the package's jobs on top and less to time: one model of each suite."""
    folder = tmp_path_factory.mktemp("suites")
    for kind, name in SUITES.items():
        text = (ROOT / "suites" / f"{name}.toml").read_text(encoding="utf-8")
        timing = "timing = { batches = [1, 2], min_seconds = 0.01, min_rounds = 2 }"
        text, count = re.subn(r"^timing = .*$", timing, text, flags=re.MULTILINE)
        assert count == (name != "generation-256"), name
        head, jobs = text.split("jobs = [\n")
        jobs = "".join(line for line in jobs.splitlines(keepends=True) if not LEFT_OUT.search(line))
        (folder / f"{name}.toml").write_text(f"{head}jobs = [\n{OWN[kind]}{jobs}", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_release.write_shelf(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def ours(server, imagenet: Path, suites: Path, shelf: Path, tmp_path_factory: pytest.TempPathFactory):
    """The place, the arguments, and what the first run said."""
    folder = tmp_path_factory.mktemp("bench")
    place = Place(server, folder, Path("unused"), path=(made_release.write_package(tmp_path_factory.mktemp("site")),))
    made_release.write_statistics(folder / "data" / f"first-{LIMIT}")
    names = list(SUITES.values())
    arguments = ["run", *names, "--data", imagenet, "--limit", str(LIMIT), "--weights", shelf, "--suites", suites]
    arguments += ["--device", "cpu", "--no-page"]
    out = place.call(*arguments).well()
    print(out)
    return place, arguments, out


def records(place: Place) -> dict[str, dict]:
    found = [json.loads(path.read_bytes()) for path in sorted((place.results / "records").glob("*/*/*.json"))]
    specs = [record["spec"] for record in found]
    titles = [f"{s['suite']} {s['method']} {s['settings']} {s['variant'] or s['model']}" for s in specs]
    return dict(zip(titles, found, strict=True))


def named(found: dict[str, dict], *words: str) -> dict:
    (record,) = [record for title, record in found.items() if all(word in title for word in words)]
    return record


def test_each_suite_measures_what_has_weights(ours):
    place, _, out = ours
    found = records(place)
    rebuilt = named(found, "reconstruction", "made-vq")
    values = {value["name"]: value["value"] for value in rebuilt["values"]}
    assert values.keys() >= {"rfid", "inception_score", "psnr", "ssim", "lpips", "bits_per_pixel", "codebook_use"}
    assert {value["n"] for value in rebuilt["values"]} == {LIMIT}
    assert rebuilt["spec"]["protocol"] == "titok-val50k"
    assert rebuilt["spec"]["weights"].keys() >= {"made/vq/model.safetensors", made_release.INCEPTION.name}
    assert list(rebuilt["spec"]["data"]) == ["imagenet-val-256-bicubic/val"]
    codecs = [title for title in found if " jpeg " in title or " webp " in title]
    assert len(codecs) == 1, "a codec needs no weights of its own"

    sampled = named(found, "generation", "made-maskgit")
    values = {value["name"] for value in sampled["values"]}
    assert values >= {"gfid", "sfid", "inception_score", "precision", "recall"}
    assert list(sampled["spec"]["data"]) == [made_release.STATISTICS]

    judged = named(found, "classification", " tome ", "'r': 13", "deit_tiny")
    values = {value["name"] for value in judged["values"]}
    assert values >= {"top1", "top1_difference", "macs_ratio", "speedup_best"}
    assert list(judged["spec"]["data"]) == ["imagenet-val-224-bicubic-875/val"]
    assert named(found, "imagenet-throughput tome", "test_vit.random")["spec"]["data"] == {}
    tables = out[out.index("Reconstruction — ") : out.index(" measured, 0 already there")]
    assert max(map(len, tables.splitlines())) <= 100


def test_what_is_less_than_the_protocol_says_so(ours):
    for title, record in records(ours[0]).items():
        if "throughput" not in title:
            text = " ".join(record["warnings"])
            assert f"not comparable: of {LIMIT} images, where protocol" in text, title
        if "reconstruction" in title:
            assert "is a subset, 4 of 50,000 images" in text
            assert f"not comparable: {made_release.INCEPTION.name} is not the published file" in text


def test_what_has_no_weights_is_one_line_with_the_command_that_gets_them(ours):
    out = ours[2]
    lines = [line for line in out.splitlines() if " missing " in line]
    for name in ("titok/l32", "one-d-piece/s256", "titok-maskgit/s128", "deit_small_patch16_224.fb_in1k"):
        found = [line for line in lines if f"`tokenmark weights fetch {name}`" in line]
        assert found, name
    assert "Traceback" not in out


def test_a_second_start_measures_and_prepares_nothing_again(ours):
    place, arguments, _ = ours
    before = {path: path.read_bytes() for path in (place.results / "records").rglob("*.json")}
    out = place.call(*arguments).well()
    assert "preparing" not in out
    assert "0 measured" in out
    assert {path: path.read_bytes() for path in (place.results / "records").rglob("*.json")} == before


def test_nothing_to_measure_is_status_2_and_no_pictures_are_decoded(ours, place: Place, tmp_path: Path):
    """Without weights nobody waits for pictures to be prepared."""
    _, arguments, _ = ours
    imagenet = arguments[arguments.index("--data") + 1]
    (tmp_path / "none").mkdir()
    more = (
        "--weights",
        tmp_path / "none",
        "--suites",
        ROOT / "suites",
        "--no-page",
        "--device",
        "cpu",
        "--methods",
        "titok",
    )
    done = place.call("run", "reconstruction-256", "--data", imagenet, *more)
    assert done.status == 2
    assert "titok/l32 has no weights here" in done.out
    assert "preparing" not in done.out
    assert not (place.folder / "data").exists()


def test_without_data_the_command_that_prepares_them_is_said(ours, place: Place):
    _, arguments, _ = ours
    shelf = arguments[arguments.index("--weights") + 1]
    more = ("--weights", shelf, "--suites", ROOT / "suites", "--no-page", "--device", "cpu", "--methods", "jpeg")
    done = place.call("run", "reconstruction-256", "--data", "empty", *more)
    assert done.status == 2
    command = "`tokenmark prepare imagenet-val --source PATH --size 256 --crop bicubic --data empty`"
    assert f"imagenet-val-256-bicubic is not in empty: prepare it with {command}" in " ".join(done.out.split())
