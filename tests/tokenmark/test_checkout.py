"""What is read of git, beside git itself."""

import pytest

from tests.tokenmark import clone
from tokenmark.checkout import Checkout, CheckoutError


@pytest.fixture
def repository(tmp_path):
    root = tmp_path / "a repository"
    (root / "folder").mkdir(parents=True)
    (root / "folder" / "file").write_bytes(b"one\n")
    clone.git(tmp_path, "init", "--quiet", str(root))
    first = clone.commit(root, "one")
    (root / "folder" / "file").write_bytes(b"two\xff\n")
    (root / "folder" / "more").write_bytes(b"more")
    return root, first, clone.commit(root, "two")


def test_commits(repository):
    root, first, second = repository
    checkout = Checkout.around(root / "folder" / "absent" / "place")
    assert checkout.root.samefile(root)
    for name in ("HEAD", second, second[:8]):
        assert checkout.commit(name) == second
    assert checkout.commit("HEAD~1") == first
    for name in ("", "absent", "HEAD~5", "--all", "0" * 40):
        assert checkout.commit(name) is None


def test_files_of_a_commit_leave_the_working_tree(repository):
    root, first, second = repository
    checkout = Checkout.around(root)
    (root / "folder" / "file").write_bytes(b"three")
    assert checkout.files(first, "folder") == {"folder/file": b"one\n"}
    assert checkout.files(second, "folder") == {"folder/file": b"two\xff\n", "folder/more": b"more"}
    assert checkout.files(second, "absent") == {}
    assert (root / "folder" / "file").read_bytes() == b"three"
    assert checkout.versions("folder/file") == [b"two\xff\n", b"one\n"]
    assert checkout.versions("absent") == []


def test_paths(repository, tmp_path):
    checkout = Checkout.around(repository[0])
    assert checkout.relative(repository[0] / "folder" / "file") == "folder/file"
    with pytest.raises(CheckoutError, match="is not in the repository"):
        checkout.relative(tmp_path / "elsewhere")
    with pytest.raises(CheckoutError, match="`git log absent` failed"):
        checkout.tell("log", "absent")


@pytest.mark.parametrize("path", ["/usr/bin:/bin", "/nowhere"])
def test_without_history(tmp_path, monkeypatch, path):
    monkeypatch.setenv("PATH", path)  # git is there, or is not
    monkeypatch.chdir(tmp_path)
    checkout = Checkout.around(tmp_path)
    assert not checkout.tracked
    assert checkout.root.samefile(tmp_path)
    assert checkout.commit("HEAD") is None
    with pytest.raises(CheckoutError, match="git installed"):
        checkout.tell("status")
