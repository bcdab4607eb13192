"""Where published weights are found, which bytes are taken, and what is said when they are not there."""

import pytest
import torch

from tests.loopback import COMMIT, sha256
from tokenmark.contracts import Release
from tokenmark.errors import MissingWeightsError, WeightsError
from tokenmark.shelf import Shelf, default_folder, given
from tokenmark.weights import WeightsFile

RIGHT = sha256(b"right")
RELEASE = Release("made/net", "part/model.safetensors")
PINNED = Release("made/net", revision=COMMIT, sha256=RIGHT)
FILE = WeightsFile("net.pth", "the moon", RIGHT, "http://127.0.0.1:9/net.pth")


@pytest.fixture
def torch_hub(tmp_path, monkeypatch):
    """An empty folder of torch.hub's downloads."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


@pytest.fixture
def shelf(tmp_path, torch_hub):
    return Shelf(tmp_path / "shelf")


def put(path, data=b"right"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def pin(shelf, key, **fields):
    lines = "".join(f'{name} = "{value}"\n' for name, value in fields.items())
    put(shelf.folder / "pins.toml", f'["{key}"]\n{lines}'.encode())


def test_the_default_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("TOKENMARK_WEIGHTS", str(tmp_path))
    assert Shelf().folder == tmp_path
    monkeypatch.delenv("TOKENMARK_WEIGHTS")
    assert str(default_folder()) == str(Shelf().folder) == "weights"
    assert not Shelf().download


def test_a_file_that_nobody_pinned_is_taken_as_it_is(shelf):
    path = put(shelf.folder / "made--net" / "part" / "model.safetensors", b"mine")
    found = shelf.find(RELEASE, "net/small")
    assert (found.name, found.path, found.sha256) == ("made/net/part/model.safetensors", path, sha256(b"mine"))
    assert found.warnings == []


def test_the_shelf_comes_before_torch_hub(shelf, torch_hub):
    put(torch_hub / "net.pth")
    assert shelf.find(FILE, "net").path == torch_hub / "net.pth"
    put(shelf.folder / "net.pth")
    assert shelf.find(FILE, "net").path == shelf.folder / "net.pth"


@pytest.mark.parametrize("item", [PINNED, FILE])
@pytest.mark.parametrize("data", [b"righ", b"rightt", b"Right", b""])
def test_other_bytes_than_the_published(shelf, item, data):
    put(shelf.places(item)[0], data)
    with pytest.raises(
        WeightsError, match=r"is another file or truncated.*`tokenmark weights fetch net/small`"
    ) as error:
        shelf.find(item, "net/small")
    assert "\n" not in str(error.value)


def test_a_file_that_changed_is_read_again(shelf):
    path = put(shelf.places(FILE)[0])
    shelf.find(FILE, "net")
    path.write_bytes(b"wrong")
    with pytest.raises(WeightsError, match="is another file"):
        shelf.find(FILE, "net")


def test_a_pin_holds_for_a_local_file(shelf):
    put(shelf.places(RELEASE)[0])
    pin(shelf, RELEASE.key, sha256=RIGHT)
    assert shelf.find(RELEASE, "net/small").sha256 == RIGHT
    pin(shelf, RELEASE.key, sha256=sha256(b"other"))
    with pytest.raises(WeightsError, match="is another file"):
        shelf.find(RELEASE, "net/small")


@pytest.mark.parametrize("item", [PINNED, FILE])
def test_ones_own_file_in_the_published_ones_place_is_told(shelf, item):
    """Allowed, for people test with weights of their own; and never in silence."""
    put(shelf.places(item)[0], b"mine")
    pin(shelf, item.key, sha256=sha256(b"mine"))
    found = shelf.find(item, "net")
    assert not found.published
    mine = sha256(b"mine")
    assert found.warnings == [f"not comparable: {item.key} is not the published file (its SHA-256 is {mine})"]


@pytest.mark.parametrize(
    ("item", "command"),
    [
        (RELEASE, "`tokenmark weights pin net/small`, `tokenmark weights fetch net/small`"),
        (PINNED, "get it: `tokenmark weights fetch net/small`"),
        (FILE, "get it: `tokenmark weights fetch net/small`"),
    ],
)
def test_missing_says_what_where_and_how_to_get_it(shelf, item, command):
    with pytest.raises(MissingWeightsError) as error:
        shelf.find(item, "net/small")
    message = str(error.value)
    assert "\n" not in message
    for part in ("net/small has no weights here", item.key, *shelf.places(item), command):
        assert str(part) in message
    assert not shelf.folder.exists()


def test_what_nobody_pinned_is_not_downloaded(tmp_path, torch_hub):
    shelf = Shelf(tmp_path / "shelf", download=True)
    with pytest.raises(WeightsError, match=r"net/small is not pinned.*first run `tokenmark weights pin net/small`"):
        shelf.find(RELEASE, "net/small")
    pin(shelf, RELEASE.key, sha256=RIGHT)  # without a commit nothing can be asked for
    with pytest.raises(WeightsError, match="net/small is not pinned"):
        shelf.find(RELEASE, "net/small")


def test_a_file_that_is_named(tmp_path):
    path = put(tmp_path / "other.pth")
    assert given(FILE, path).published
    assert given(RELEASE, path).sha256 == RIGHT
    other = put(tmp_path / "mine.pth", b"mine")
    with pytest.raises(WeightsError, match=rf"wanted is {RIGHT[:12]}"):
        given(FILE, other)
    assert given(FILE, other, sha256(b"mine").upper()).warnings[0].startswith("not comparable: net.pth is not the pub")
    with pytest.raises(MissingWeightsError, match=r"absent\.pth is missing: it was to stand for net\.pth"):
        given(FILE, tmp_path / "absent.pth")
