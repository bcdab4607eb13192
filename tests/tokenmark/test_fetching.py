"""Downloads through the real `huggingface_hub`, from a server on this machine: what arrives, and what never does."""

import resource
import shutil

import huggingface_hub
import pytest
import torch

from tests.loopback import COMMIT, Hub, serving, sha256
from tokenmark import hub as hubs
from tokenmark.contracts import Release
from tokenmark.errors import MissingWeightsError, WeightsError
from tokenmark.pins import Pin
from tokenmark.shelf import Shelf
from tokenmark.weights import WeightsFile

DATA = bytes(range(256)) * 40
NAME = "model.safetensors"
RELEASE = Release("made/net", revision=COMMIT, sha256=sha256(DATA))
UNPINNED = Release("made/net")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub that `huggingface_hub` asks in the real one's place, with a cache of its own."""
    with serving(Hub(files={NAME: DATA}, plain={"config.json": b"{}"})) as running:
        point_at(running.endpoint, monkeypatch, tmp_path)
        yield running
    huggingface_hub.close_session()


def point_at(endpoint, monkeypatch, tmp_path):
    """As HF_ENDPOINT does, which is read once a process."""
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def shelf(tmp_path):
    return Shelf(tmp_path / "shelf", download=True)


def refused(shelf, item, *words):
    """The one line with which a download ends, after which nothing has the file's name."""
    with pytest.raises(WeightsError) as error:
        shelf.find(item, "net/small")
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)
    assert not shelf.places(item)[0].exists()


def test_what_the_hub_offers_and_the_pinned_bytes(hub, shelf):
    offer = hubs.offer(UNPINNED)
    assert offer == hubs.Offer(Pin(revision=COMMIT, sha256=sha256(DATA)), len(DATA))
    assert not any("resolve" in path for path in hub.asked)  # nothing was downloaded
    found = shelf.find(RELEASE, "net/small")
    assert (found.path.read_bytes(), found.sha256) == (DATA, sha256(DATA))
    assert {path.name for path in found.path.parent.iterdir()} <= {NAME, f".{NAME}.lock"}
    asked = len(hub.asked)
    assert shelf.find(RELEASE, "net/small") == found
    assert len(hub.asked) == asked


def test_a_release_that_names_its_commit_is_offered_at_that(hub):
    assert hubs.offer(RELEASE).pin.revision == COMMIT
    assert all(path.endswith(COMMIT) for path in hub.asked)


def test_nothing_is_asked_unless_told_to(hub, tmp_path):
    with pytest.raises(MissingWeightsError):
        Shelf(tmp_path / "shelf").find(RELEASE, "net/small")
    with pytest.raises(WeightsError, match="is not pinned"):
        Shelf(tmp_path / "shelf", download=True).find(UNPINNED, "net/small")
    assert hub.asked == []


def test_a_wrong_hash_leaves_nothing(hub, shelf):
    """Whoever sends other bytes than were pinned, and as many, is found out before the file has its name."""
    hub.sent[NAME] = DATA[::-1]
    refused(shelf, RELEASE, f"pinned to SHA-256 {sha256(DATA)}, but what came has {sha256(DATA[::-1])}", "deleted")
    left = [path for path in shelf.folder.rglob("*") if path.is_file() and path.read_bytes() == DATA[::-1]]
    assert left == []
    hub.sent.clear()
    assert shelf.find(RELEASE, "net/small").sha256 == sha256(DATA)


def test_a_hub_that_has_other_bytes_is_not_even_downloaded_from(hub, shelf):
    hub.files[NAME] = b"other"
    refused(shelf, RELEASE, sha256(DATA), sha256(b"other"), "nothing was downloaded")
    assert not any(path.startswith("GET") for path in hub.asked)


def test_a_commit_that_is_gone(hub, shelf):
    hub.commit = "f" * 40
    refused(shelf, RELEASE, f"revision {COMMIT} is gone from the hub", "pin again")
    with pytest.raises(WeightsError, match="is gone from the hub"):
        hubs.offer(RELEASE)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"gated": True}, ("gated: accept its terms at http://127.0.0.1", "hf auth login")),
        ({"repo": "made/other"}, ("no such repository, or not for you",)),
        ({"broken": 503}, ("answered 503",)),
        ({"broken": 403}, ("answered 403",)),
    ],
)
def test_what_the_hub_may_answer(hub, shelf, fault, words):
    for name, value in fault.items():
        setattr(hub, name, value)
    refused(shelf, RELEASE, *words)
    with pytest.raises(WeightsError, match=words[0]):
        hubs.offer(UNPINNED)


def test_a_file_that_is_not_there(hub, shelf):
    absent = Release("made/net", "absent.bin", COMMIT, sha256(DATA))
    refused(shelf, absent, f"there is no such file at revision {COMMIT}")
    with pytest.raises(WeightsError, match=r"made/net has no file absent\.bin"):
        hubs.offer(Release("made/net", "absent.bin"))


def test_a_file_without_a_hash_cannot_be_pinned_from_the_hub(hub):
    with pytest.raises(WeightsError, match=r"knows no SHA-256 of made/net/config\.json, which is not kept by LFS"):
        hubs.offer(Release("made/net", "config.json"))


def test_a_server_that_is_not_there(hub, shelf, monkeypatch, tmp_path):
    with serving(Hub()) as gone:
        point_at(gone.endpoint, monkeypatch, tmp_path)
    refused(shelf, RELEASE, f"asking {gone.endpoint} failed", "run the same command again")
    with pytest.raises(WeightsError, match=r"failed: .*run the same command again"):
        hubs.offer(UNPINNED)


def test_a_download_that_is_cut_off_goes_on(hub, shelf):
    hub.cuts = [1000]
    assert shelf.find(RELEASE, "net/small").path.read_bytes() == DATA
    assert sum(path.startswith("GET") for path in hub.asked) == 2  # the library's own second try


def test_a_download_that_ends_too_early(hub, shelf):
    hub.sent[NAME] = DATA[:-1]
    refused(shelf, RELEASE, "failed: Consistency check failed")
    assert [path for path in shelf.folder.rglob("*") if path.suffix == ".incomplete"] == []


def test_a_full_disk(hub, shelf):
    """Whether the hub's file or another's: one line, and other runs go on."""
    url = WeightsFile("net.pth", "here", sha256(DATA), hub.url(NAME))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    try:
        refused(shelf, RELEASE, "cannot be written to", "make room, or name another folder in TOKENMARK_WEIGHTS")
        refused(shelf, url, "net.pth cannot be written to")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_killed_downloads_remains_are_cleared(hub, shelf):
    place = shelf.places(RELEASE)[0]
    remains = place.parent / f".{NAME}.fetching" / ".cache" / "old.incomplete"
    remains.parent.mkdir(parents=True)
    remains.write_bytes(b"half")
    shelf.find(RELEASE, "net/small")
    assert not remains.parent.exists()


@pytest.fixture
def single(hub):
    """A file with an address of its own, which happens to be the hub's."""
    return WeightsFile("net.pth", "here", sha256(DATA), hub.url(NAME))


def test_a_single_file(hub, shelf, single):
    found = shelf.find(single, "net")
    assert (found.path, found.path.read_bytes()) == (shelf.folder / "net.pth", DATA)
    assert {path.name for path in shelf.folder.iterdir()} <= {"net.pth", ".net.pth.lock"}


def test_a_single_file_goes_on_where_it_was_cut_off(hub, shelf, single):
    hub.cuts = [1000]
    refused(shelf, single, "cut off after 1,000 of 10,240 bytes", "run the same command again")
    assert shelf.find(single, "net").path.read_bytes() == DATA
    assert hub.ranges == ["bytes=1000-"]


def test_a_single_file_that_came_whole_before_it_was_checked(hub, shelf, single):
    part = shelf.folder / ".net.pth.fetching" / "net.pth"
    part.parent.mkdir(parents=True)
    part.write_bytes(DATA)
    assert shelf.find(single, "net").path.read_bytes() == DATA


@pytest.mark.parametrize("before", [b"", b"x" * 1000])
def test_a_single_file_with_a_wrong_hash(hub, shelf, single, before):
    part = shelf.folder / ".net.pth.fetching" / "net.pth"
    part.parent.mkdir(parents=True)
    part.write_bytes(before)
    hub.sent[NAME] = DATA[::-1]
    refused(shelf, single, f"pinned to SHA-256 {sha256(DATA)}, but what came has", "deleted")
    assert not part.exists()
    hub.sent.clear()
    assert shelf.find(single, "net").sha256 == sha256(DATA)


def test_a_single_file_whose_server_refuses_or_is_gone(hub, shelf, single):
    hub.broken = 500
    refused(shelf, single, "net", "answered 500")
    shutil.rmtree(shelf.folder)
    with serving(Hub()) as gone:
        pass
    refused(shelf, WeightsFile("net.pth", "", sha256(DATA), f"{gone.endpoint}/net.pth"), "Connection refused")
