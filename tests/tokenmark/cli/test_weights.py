"""`tokenmark weights`: list, pin and fetch, against a hub on this machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.loopback import COMMIT, Hub, serving, sha256
from tokenmark import catalogue
from tokenmark.cli.main import status_of

DATA = b"made weights" * 100
REPO = "yucornetto/tokenizer_titok_l32_imagenet"


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Run the verb in an empty folder; gives status, output and errors."""
    monkeypatch.delenv("TOKENMARK_WEIGHTS", raising=False)
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        return status_of(["weights", *map(str, arguments)]), *capsys.readouterr()

    return call


def process(folder, endpoint, *arguments):
    """The command line as a process of its own, which reads HF_ENDPOINT when it starts."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TOKENMARK"))}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "home"), "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, "-m", "tokenmark", "weights", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_pinned_fetched_and_found(tmp_path):
    """The two commands of the page, one after the other, and a third that has nothing to do."""
    with serving(Hub(repo=REPO, files={"model.safetensors": DATA})) as hub:
        early = process(tmp_path, hub.endpoint, "fetch", "titok/l32")
        assert (early.returncode, hub.asked) == (2, [])
        assert early.stderr.count("\n") == 1
        assert "first run `tokenmark weights pin titok/l32`" in early.stderr
        pinned = process(tmp_path, hub.endpoint, "pin", "titok/l32")
        assert (pinned.returncode, pinned.stderr) == (0, "")
        for part in (COMMIT, sha256(DATA), "1,200 bytes", "weights/pins.toml", "from here on these bytes are trusted"):
            assert part in pinned.stdout
        fetched = process(tmp_path, hub.endpoint, "fetch", "titok/l32")
        assert fetched.returncode == 0, fetched.stderr
        assert sha256(DATA) in fetched.stdout
    path = tmp_path / "weights" / "yucornetto--tokenizer_titok_l32_imagenet" / "model.safetensors"
    assert path.read_bytes() == DATA
    again = process(tmp_path, hub.endpoint, "fetch", "titok/l32")
    assert (again.returncode, again.stdout) == (0, fetched.stdout)


def test_the_list(run, tmp_path):
    path = tmp_path / "weights" / "turing-motors--One-D-Piece-S-256" / "model.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(DATA)
    status, out, err = run("list")
    assert (status, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 100
    status, out, err = run("list", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    states = {name: row["state"] for name, row in rows.items()}
    assert states["one-d-piece/s256"] == "here"
    assert states["titok/mini-16"] == "bundled"
    assert states["titok/l32"] == states["dinov2-vit-l14"] == "not pinned"
    assert rows["titok/l32"]["from"] == f"hub: {REPO}"
    assert rows["maskgit-vq/imagenet-f16-256"]["from"] == "hub: fun-research/TiTok/maskgit-vqgan-imagenet-f16-256.bin"
    assert rows["titok-maskgit/b64"]["kind"] == "generator"
    assert {"inception", "lpips-alex", "clip-vit-l14"} <= rows.keys()


def test_a_pinned_one_is_missing_and_suites_name_classifiers(run, tmp_path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "pins.toml").write_text(
        f'["{REPO}/model.safetensors"]\nrevision = "{COMMIT}"\nsha256 = "{sha256(DATA)}"\n'
    )
    (tmp_path / "suites").mkdir()
    job = '{ task = "classification", method = "tome", model = "deit_small_patch16_224.fb_in1k" }'
    (tmp_path / "suites" / "made.toml").write_text(
        'version = 1\ntitle = "Made"\nprotocol = "mini"\nbatch_size = 1\n'
        f"timing = {{ batches = [1], min_seconds = 1.0, min_rounds = 3 }}\njobs = [{job}]\n"
    )
    states = {row["name"]: row["state"] for row in json.loads(run("list", "--json")[1])}
    assert states["titok/l32"] == "missing"
    assert states["deit_small_patch16_224.fb_in1k"] == "not pinned"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("fetch", "titok/l3"), "unknown weights 'titok/l3': did you mean titok/l32"),
        (("pin", "inceptoin"), "unknown weights 'inceptoin': did you mean inception"),
        (("pin", "deit_small_patch16_224"), "does not say which weights: choose deit_small_patch16_224.fb_in1k"),
        (("fetch", "deit_small_patch16_224.fb_in1"), "did you mean deit_small_patch16_224.fb_in1k"),
        (("fetch", "titok/mini-16"), "there is nothing to get for titok/mini-16"),
        (("fetch", "vit-mini"), "there is nothing to get for vit-mini"),
        (("fetch",), "Missing argument 'NAME...'"),
        (("feth",), "unknown verb or method 'feth': did you mean fetch"),
        (("titk",), "unknown verb or method 'titk': did you mean titok"),
    ],
)
def test_mistakes_are_one_line(run, arguments, words):
    status, out, err = run(*arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("tokenmark: ")
    assert words in err


def test_one_failure_does_not_hold_up_the_others(run, tmp_path):
    status, out, err = run("pin", "titok/l3", "inception", "--weights", tmp_path / "mine")
    assert status == 2
    assert "unknown weights 'titok/l3'" in err
    assert "inception: nothing to pin: weights-inception-2015-12-05-6726825d.pth was published with its SHA-256" in out


def test_a_suite_stands_for_all_that_its_jobs_read():
    folder = Path(__file__).parents[3] / "suites"
    names = catalogue.expanded(["generation-256", "titok/l32", "imagenet-throughput", "mini"], folder)
    assert (names[0], len(names)) == ("inception", len(set(names)))
    sizes = ("l32", "b64", "s128")
    both = {f"{part}/{size}" for size in sizes for part in ("titok-maskgit", "titok")}
    assert {*both, "rar/b", "maskgit-vq/imagenet-f16-256", "sd-vae/ft-ema", "clip-text-vit-l14-336"} <= set(names)
    names = catalogue.expanded(["reconstruction-256", "classification"], folder)
    assert {"inception", "lpips-alex", "titok/bl64-vae", "one-d-piece/l256", "maskgit-vq/imagenet-f16-256"} <= set(
        names
    )
    assert len(names) == len(set(names))
    assert {"clip-text-vit-l14-336", "part-sd3-medium-vae", "selftok/tokenizer-512"} <= set(names)
    for name in names:
        assert catalogue.get(name)


def test_without_a_verb_it_explains_itself(run):
    status, out, _ = run()
    assert status == 0
    for verb in ("list", "pin", "fetch"):
        assert f"\n  {verb} " in out
        assert run(verb, "--help")[0] == 0


def test_every_entry_is_found_by_its_name():
    for entry in catalogue.entries():
        if entry.item is not None:
            assert catalogue.get(entry.name) is entry.item
