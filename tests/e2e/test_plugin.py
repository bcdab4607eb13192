"""A stranger's method, by doing what docs/add-a-method.md says, word for word."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.e2e.harness import ROOT, Place
from tests.long import takes_long

DOC = ROOT / "docs" / "add-a-method.md"
INSTALL = "uv pip install --no-deps -e my-tokens"
SLOW, QUICK = "min_seconds = 0.5, min_rounds = 10", "min_seconds = 0.02, min_rounds = 3"
"""The only change to what the page says: less timing."""
STEP = re.compile(
    r"<!-- file: (?P<path>\S+) -->\n```\w+\n(?P<text>.*?)```\n|```console\n(?P<commands>.*?)```\n", re.DOTALL
)


def steps() -> list[tuple[str, str]]:
    """Files to write, as path and text, and commands, as `$` and the command, in the page's order."""
    found = []
    for step in STEP.finditer(DOC.read_text(encoding="utf-8")):
        if step["path"]:
            found.append((step["path"], step["text"]))
        else:
            found += [("$", line.removeprefix("$ ")) for line in step["commands"].splitlines() if line.startswith("$ ")]
    return found


def install(folder: Path, into: Path) -> None:
    """What an installer does, without a network and without this environment: build the wheel and unpack it."""
    built = subprocess.run(
        [
            sys.executable,
            "-c",
            "import hatchling.build, sys; print(hatchling.build.build_wheel(sys.argv[1]))",
            str(into),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    with zipfile.ZipFile(into / built.stdout.splitlines()[-1]) as wheel:
        wheel.extractall(into)


@takes_long
def test_the_page_of_instructions_works(place: Place):
    pytest.importorskip("hatchling", reason="hatchling, which builds the package, is not installed")
    copy, site = place.folder / "checkout", place.folder / "site"
    site.mkdir()
    for folder in ("tokenmark", "reference_impls", "suites"):
        # with what Python has compiled, which holds for the copies; not with what it is just writing
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("*.pyc.*"))
    place.path = (copy, site)
    assert SLOW in DOC.read_text(encoding="utf-8")
    outputs: dict[str, list[str]] = {}
    measured = []
    for path, text in steps():
        if path != "$":
            (copy / path).parent.mkdir(parents=True, exist_ok=True)
            (copy / path).write_text(text.replace(SLOW, QUICK), encoding="utf-8")
        elif text == INSTALL:
            install(copy / "my-tokens", site)
        elif text.startswith("tokenmark "):
            words = text.split()[1:]
            if words == ["run", "mine"]:
                words = [*place.suite("mine"), "--suites", str(copy / "suites")]
            outputs.setdefault(text, []).append(place.call(*words).well())
            measured.append(set((place.results / "records" / "mine").glob("*/*.json")))
        else:
            assert text.split()[0] in ("mkdir", "mv", "touch")
            subprocess.run(text, shell=True, cwd=copy, check=True, env={"PATH": os.environ["PATH"]})
    for output in outputs["tokenmark list"]:
        for word in ("norm-drop", "grey-blocks", "https://example.org/norm-drop", "keep_rate"):
            assert word in output
    inside, outside = outputs["tokenmark run mine"]
    for output in (inside, outside):
        tables = output[output.index("Reconstruction — ") :]
        for word in ("grey-blocks/g8", "jpeg/q10", "norm-drop keep_rate=0.6", "Throughput — "):
            assert word in tables
    assert "4 measured, 0 already there, 0 failed." in inside
    assert "2 measured, 2 already there, 0 failed." in outside
    *_, before, after = measured
    assert len(before) == 4
    assert before < after
    assert {path.parent.name for path in after - before} == {"norm-drop", "grey-blocks"}
    assert not (copy / "reference_impls" / "reducers" / "norm_drop.py").exists()


def test_two_packages_with_one_id_are_refused(place: Place):
    from tests.e2e import plugins

    place.path = (plugins.install(place.folder / "site", "stranger", {"tome": plugins.reducer("tome")}),)
    place.call("list").mistake("two methods are called 'tome'", "reference_impls.reducers.tome", "stranger.tome")
