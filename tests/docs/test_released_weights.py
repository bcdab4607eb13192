"""What docs/released-weights.md says: its commands are run against a hub on this machine, its messages are real."""

import re
import shlex
from pathlib import Path

import pytest

from tests.loopback import Hub, serving
from tests.tokenmark.test_fetching import point_at
from tokenmark import extractors, pins
from tokenmark.cli.main import status_of
from tokenmark.contracts import Release
from tokenmark.measures import lpips
from tokenmark.shelf import Shelf

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "released-weights.md").read_text(encoding="utf-8")
MEASURES = (ROOT / "docs" / "measures.md").read_text(encoding="utf-8")
DATA = b"weights"


def test_commands(tmp_path, monkeypatch, capsys):
    """As written, one after the other; then the file lies where the page says."""
    monkeypatch.delenv("TOKENMARK_WEIGHTS", raising=False)
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^\$ tokenmark (weights .*)$", TEXT, re.MULTILINE)
    assert [command.split()[1] for command in commands] == ["list", "pin", "fetch"]
    with serving(Hub(repo="yucornetto/tokenizer_titok_l32_imagenet", files={"model.safetensors": DATA})) as hub:
        point_at(hub.endpoint, monkeypatch, tmp_path)
        for command in commands:
            assert status_of(shlex.split(command)) == 0, capsys.readouterr()
    shown = re.search(r"^  (yucornetto--\S+)", TEXT, re.MULTILINE)
    assert (tmp_path / "weights" / shown[1]).read_bytes() == DATA
    assert pins.read(tmp_path / "weights").keys() == {re.search(r'^\["(.+)"\]$', TEXT, re.MULTILINE)[1]}


def test_the_pin_that_is_shown_is_one(tmp_path):
    (tmp_path / "pins.toml").write_text(TEXT.split("```toml\n")[1].split("```")[0])
    assert len(pins.read(tmp_path)) == 1


def test_messages_are_those_of_the_code():
    source = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "tokenmark").glob("*.py")))
    joined = re.sub(r'"\s*\n\s*f?"', "", source)
    table = TEXT[TEXT.index("## What can go wrong") :]
    messages = re.findall(r"^\| \*([^*]+)\* \|", table, re.MULTILINE)
    assert len(messages) == 11
    for message in messages:
        for words in message.split("..."):
            assert words.strip() in joined, (message, words)


@pytest.mark.parametrize("name", [*extractors.PLACES, *(f"lpips-{net}" for net in lpips.FILES)])
def test_the_table_of_measures_is_true(name):
    """Names, files and hashes of docs/measures.md are those of the source."""
    net = name.removeprefix("lpips-")
    item = lpips.FILES[net] if net in lpips.FILES else extractors.recipe(name).file
    (row,) = [line for line in MEASURES.splitlines() if f"`{name}`" in line and item.key in line]
    assert ("to be pinned" in row) if isinstance(item, Release) else (f"{item.sha256[:8]}…" in row)


def test_the_folder_is_as_the_page_says():
    release = Release("timm/deit_small_patch16_224.fb_in1k")
    (place,) = Shelf(Path("weights")).places(release)
    assert str(place.relative_to("weights")) in TEXT
