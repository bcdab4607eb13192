"""A checkout of the repository: what git knows of commits and files, read without touching the working tree."""

import io
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

from tokenmark.errors import TokenmarkError

HOW = "run this inside a clone of the repository, with git installed"


class CheckoutError(TokenmarkError):
    """Something that only version control could tell, and it does not."""


@dataclass(frozen=True, slots=True)
class Checkout:
    """A working tree of git, or a folder that stands in its place and has no history."""

    root: Path
    tracked: bool = True
    """Whether git keeps it."""

    @classmethod
    def around(cls, folder: Path) -> "Checkout":
        """The working tree that holds `folder`; without git or outside of one, the current folder."""
        place = folder.resolve()
        while not place.is_dir():
            place = place.parent
        found = _git(place, "rev-parse", "--show-toplevel")
        return cls(Path(found.decode().strip())) if found else cls(Path.cwd(), tracked=False)

    def ask(self, *arguments: str) -> str | None:
        """What git answers; None where it has no answer."""
        answer = _git(self.root, *arguments) if self.tracked else None
        return None if answer is None else answer.decode(errors="replace").strip()

    def tell(self, *arguments: str) -> str:
        """What git answers.

        Raises:
            CheckoutError: it has no answer.
        """
        answer = self.ask(*arguments)
        if answer is None:
            raise CheckoutError(f"`git {' '.join(arguments)}` failed in {self.root}: {HOW}")
        return answer

    def commit(self, name: str) -> str | None:
        """The full name of the commit that a branch, tag or abbreviation means; None if there is none here."""
        if not name or name.startswith("-"):
            return None
        return self.ask("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")

    def relative(self, path: Path) -> str:
        """A path as git writes it.

        Raises:
            CheckoutError: it lies outside.
        """
        try:
            return placed(path).relative_to(self.root.resolve()).as_posix()
        except ValueError as error:
            raise CheckoutError(f"{path} is not in the repository at {self.root}: {HOW}") from error

    def versions(self, path: str) -> list[bytes]:
        """Every content that a file had in the history of today's commit, the newest first."""
        commits = (self.ask("log", "--format=%H", "--", path) or "").split()
        shown = (_git(self.root, "show", f"{commit}:{path}") for commit in commits)
        return [content for content in shown if content is not None]

    def files(self, commit: str, folder: str) -> dict[str, bytes]:
        """The files below a folder as they were at a commit, by their paths; none where there was no such folder."""
        if not self.ask("ls-tree", commit, "--", folder):
            return {}
        packed = _git(self.root, "archive", "--format=tar", commit, "--", folder)
        if packed is None:
            raise CheckoutError(f"`git archive {commit[:12]} {folder}` failed in {self.root}: {HOW}")
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            members = ((member.name, archive.extractfile(member)) for member in archive if member.isfile())
            return {name: file.read() for name, file in members if file is not None}


def placed(path: Path) -> Path:
    """The absolute path of a file itself: of a link its own place, not that to which it leads."""
    return path.parent.resolve() / path.name


def _git(folder: Path, *arguments: str) -> bytes | None:
    try:
        done = subprocess.run(  # noqa: S603
            ["git", "-C", str(folder), *arguments],  # noqa: S607
            capture_output=True,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
