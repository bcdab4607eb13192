"""The machine and the software that measure."""

import subprocess
from pathlib import Path

import pytest
import torch

from tokenmark import provenance
from tokenmark.files import sha256_of

CPU = torch.device("cpu")
IDENTITY = ("-c", "user.name=Made", "-c", "user.email=made@example.org", "-c", "commit.gpgsign=false")


def git(folder, *arguments):
    done = subprocess.run(["git", "-C", str(folder), *IDENTITY, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository that holds this module at its usual place, as if the package were installed from there."""
    root = tmp_path / "checkout"
    (root / "tokenmark").mkdir(parents=True)
    place = root / "tokenmark" / "provenance.py"
    place.write_text(Path(provenance.__file__).read_text())
    git(tmp_path, "init", "-q", str(root))
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "one")
    monkeypatch.setattr(provenance, "__file__", str(place))
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    return root


def revision():
    found = provenance.environment(CPU)
    return found.commit, found.dirty


def test_a_clean_and_a_changed_checkout(checkout):
    first = git(checkout, "rev-parse", "HEAD")
    assert revision() == (first, False)
    (checkout / "notes.txt").write_text("untracked: no matter\n")
    assert revision() == (first, False)
    (checkout / "tokenmark" / "provenance.py").write_text("# changed\n")
    assert revision() == (first, True)
    git(checkout, "commit", "-q", "-a", "-m", "two")
    second = git(checkout, "rev-parse", "HEAD")
    assert second != first
    assert revision() == (second, False)
    (checkout / "staged.py").write_text("")
    git(checkout, "add", "staged.py")
    assert revision() == (second, True)


def test_the_commit_is_the_packages_and_not_that_of_the_users_folder(checkout, tmp_path, monkeypatch):
    other = tmp_path / "users"
    other.mkdir()
    git(tmp_path, "init", "-q", str(other))
    (other / "file").write_text("")
    git(other, "add", ".")
    git(other, "commit", "-q", "-m", "theirs")
    monkeypatch.chdir(other)
    assert revision() == (git(checkout, "rev-parse", "HEAD"), False)


def test_a_package_that_lies_in_another_projects_repository(checkout):
    """An environment inside somebody's checkout: that commit is not the package's."""
    git(checkout, "rm", "-q", "--cached", "tokenmark/provenance.py")
    git(checkout, "commit", "-q", "--allow-empty", "-m", "without the package")
    commit, dirty = revision()
    assert commit != git(checkout, "rev-parse", "HEAD")
    assert dirty is None


def test_without_git(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    commit, dirty = revision()
    assert dirty is None
    assert commit is None or len(commit) == 40


def test_the_lock_in_force(monkeypatch, tmp_path):
    monkeypatch.delenv("TOKENMARK_LOCK", raising=False)
    assert provenance.environment(CPU).lock is None
    lock = tmp_path / "bench.txt"
    lock.write_text("torch==2.6.0\n")
    monkeypatch.setenv("TOKENMARK_LOCK", str(lock))
    found = provenance.environment(CPU)
    assert (found.lock, found.lock_sha256) == ("bench.txt", sha256_of(lock))
    lock.unlink()
    assert provenance.environment(CPU).lock_sha256 is None


def test_facts_of_the_machine():
    found = provenance.environment(CPU)
    assert found.libraries["torch"].startswith(torch.__version__.partition("+")[0])
    assert (found.device, found.threads, found.tf32) == ("cpu", torch.get_num_threads(), False)
    assert (found.cuda, found.driver) == (None, None)
    assert found.memory_bytes > 1 << 28
    assert found.device_name


def test_the_label_tells_thread_counts_apart():
    before = torch.get_num_threads()
    try:
        labels = set()
        for threads in (1, 2):
            torch.set_num_threads(threads)
            labels.add(provenance.device_label(CPU))
    finally:
        torch.set_num_threads(before)
    assert len(labels) == 2
    assert all(label.startswith(f"cpu: {provenance.device_name(CPU)}") for label in labels)
