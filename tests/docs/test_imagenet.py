"""What docs/imagenet.md says: its commands are run on a made tree, and its messages are those of the code."""

import re
import shlex
from pathlib import Path

import pytest

from tests.tokenmark.data import made_imagenet as made
from tokenmark import suites
from tokenmark.cli import run_
from tokenmark.cli.main import status_of
from tokenmark.data import prepared
from tokenmark.data.crops import CROPS
from tokenmark.data.imagenet import wnids

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "imagenet.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ tokenmark (.*)$", TEXT, re.MULTILINE)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """All that the page names, with few pictures."""
    folder, files = tmp_path_factory.mktemp("tree"), made.files()[:5]
    made.write_tar(folder / "ILSVRC2012_img_val.tar", files)
    made.write_flat(folder / "flat", files)
    made.write_class_folders(folder / "imagenet" / "val", files)
    made.pack_devkit(made.write_devkit(folder / "kit"), folder / "ILSVRC2012_devkit_t12.tar.gz")
    for place, wnid in enumerate(wnids()[:3]):
        (folder / "imagenet" / "train" / wnid).mkdir(parents=True)
        (folder / "imagenet" / "train" / wnid / f"{wnid}_{place}.JPEG").write_bytes(made.rgb(place, 40, 30))
    if made.PYARROW:
        made.write_parquet(folder / "imagenet-1k" / "data", files)
    return folder


def test_there_is_a_command_for_each_form():
    assert len(COMMANDS) == 6
    assert all(command.startswith("prepare ") for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands(tree, tmp_path, monkeypatch, command):
    """As written, but small: the made tree is no whole set."""
    if "imagenet-1k" in command and not made.PYARROW:
        pytest.skip("pyarrow, which reads parquet, is not installed: it comes with the extra `parquet`")
    monkeypatch.chdir(tree)
    more = ["--allow-subset", "--size", "16", "--workers", "1", "--data", str(tmp_path)]
    assert status_of([*shlex.split(command), *more]) == 0
    split = "train" if "imagenet-train" in command else "val"
    data = prepared.load(tmp_path / f"imagenet-{split}-16-adm" / split)
    assert len(data) == (3 if split == "train" else 5)


def test_every_crop_rule_is_explained():
    table = TEXT[TEXT.index("## Crops") :]
    assert re.findall(r"^\| `(\w[a-z0-9-]+)` \|", table, re.MULTILINE) == sorted(CROPS)


def test_the_one_command_is_as_the_page_says():
    """Its suites, their protocols and its options: none is missing, none is invented."""
    head = TEXT[: TEXT.index("## Prepare it once")]
    session = (ROOT / "noxfile.py").read_text(encoding="utf-8").partition("IMAGENET = (")[2].partition("\n)")[0]
    named = re.findall(r'"([a-z0-9-]+)"', session)
    assert re.findall(r"^\| `([a-z0-9-]+)` \|", head, re.MULTILINE) == named
    files = [ROOT / "suites" / f"{name}.toml" for name in named]
    protocols = head[head.index("stand under the protocols") :]
    for path in files:
        assert f"`{suites.load(path).protocol}`" in protocols
    options = {name for parameter in run_.command.params for name in parameter.opts if name.startswith("--")}
    named = set(re.findall(r"`(--[a-z]+)", head))
    assert named - {"--nproc"} <= options
    assert options - named == {"--method", "--run", "--page", "--suites"}
    assert "bench-imagenet" in (ROOT / "noxfile.py").read_text()


def test_messages_are_those_of_the_code():
    """The fixed words of each message stand in the source, whose lines may break anywhere."""
    source = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "tokenmark" / "data").rglob("*.py")))
    joined = re.sub(r'"\s*\n\s*f?"', "", source)
    table = TEXT[TEXT.index("## When something goes wrong") :]
    messages = re.findall(r"\*([^*]+)\*", "".join(line.split("|")[1] for line in table.splitlines() if "| *" in line))
    assert len(messages) == 14
    filled_in = r"\d+ |: |ImageNet validation set|\(?\.\.\.\)?|the pictures |data$|images\.npy "
    for message in messages:
        for words in re.split(filled_in, message):
            assert words.strip(" (") in joined, (message, words)
