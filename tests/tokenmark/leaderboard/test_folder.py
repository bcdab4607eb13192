"""Replacing the site's folder: it is the old one or the new one, and never somebody else's."""

import errno

import pytest

from tokenmark.errors import StorageError
from tokenmark.leaderboard import folder
from tokenmark.leaderboard.view import File

INDEX = File("index.html", b"<title>Tokenmark leaderboard</title>")


def tree(place):
    return {path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*") if path.is_file()}


@pytest.fixture
def out(tmp_path):
    out = tmp_path / "deep" / "site"
    folder.replace(out, [INDEX, File("tracks/old.html", b"old")])
    return out


def left_beside(out):
    return sorted(path.name for path in out.parent.iterdir() if path.name not in {"site", ".site.lock"})


def test_a_new_site_replaces_all_of_the_old_one(out):
    folder.replace(out, [INDEX, File("tracks/new.html", b"new")])
    assert tree(out) == {"index.html": INDEX.data, "tracks/new.html": b"new"}
    assert left_beside(out) == []
    assert out.stat().st_mode & 0o777 == 0o755


def stopped(error):
    yield INDEX
    yield File("tracks/new.html", b"new")
    raise error


@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), StorageError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (ValueError("a page cannot be made"), ValueError),
    ],
)
def test_what_stops_the_writer_leaves_the_old_site(out, error, seen):
    with pytest.raises(seen):
        folder.replace(out, stopped(error))
    assert tree(out) == {"index.html": INDEX.data, "tracks/old.html": b"old"}
    assert left_beside(out) == []


def test_a_full_disk_says_so(out):
    with pytest.raises(StorageError, match=r"cannot write .*No space left on device.*run the same command again"):
        folder.replace(out, stopped(OSError(errno.ENOSPC, "No space left on device")))


def test_a_kill_between_both_renames_is_mended(out):
    out.rename(out.with_name(".site.old"))
    (out.parent / ".site.killed.new").mkdir()
    with pytest.raises(ValueError, match="again"):
        folder.replace(out, stopped(ValueError("again")))
    assert tree(out)["tracks/old.html"] == b"old"
    assert left_beside(out) == []


def test_a_kill_after_both_renames_is_cleaned_up(out):
    old = out.with_name(".site.old")
    old.mkdir()
    (old / "index.html").write_bytes(b"older")
    folder.replace(out, [INDEX])
    assert tree(out) == {"index.html": INDEX.data}
    assert left_beside(out) == []


@pytest.mark.parametrize(
    "files",
    [
        {"thesis.tex": b"years"},
        {"index.html": INDEX.data, "thesis.tex": b"years"},
        {"index.html": b"<title>My own page</title>"},
        {"records/mini/a.json": b"{}"},
    ],
)
def test_nobodys_files_are_thrown_away(tmp_path, files):
    out = tmp_path / "mine"
    for path, data in files.items():
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_bytes(data)
    with pytest.raises(StorageError, match="holds other things than a leaderboard"):
        folder.replace(out, [INDEX])
    assert tree(out) == files


def test_an_empty_folder_and_the_page_of_earlier_versions_are_replaced(tmp_path):
    (tmp_path / "empty").mkdir()
    folder.replace(tmp_path / "empty", [INDEX])
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "index.html").write_bytes(b"<html><title>Tokenmark leaderboard</title><p>all in one")
    folder.replace(tmp_path / "page", [INDEX])
    assert tree(tmp_path / "empty") == tree(tmp_path / "page") == {"index.html": INDEX.data}


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "site").write_text("mine")
    with pytest.raises(StorageError, match="cannot write"):
        folder.replace(tmp_path / "site", [INDEX])
    assert (tmp_path / "site").read_text() == "mine"


def test_a_link_to_a_folder_stays_a_link(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "here").symlink_to(tmp_path / "there")
    folder.replace(tmp_path / "here", [INDEX])
    assert (tmp_path / "here").is_symlink()
    assert tree(tmp_path / "there") == {"index.html": INDEX.data}


def test_another_build_is_waited_for(out, monkeypatch):
    monkeypatch.setattr(folder, "SECONDS", 0.0)
    with folder._held(out.resolve()), pytest.raises(StorageError, match="another process is writing"):
        folder.replace(out, [INDEX])
