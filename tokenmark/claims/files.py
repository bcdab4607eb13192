"""Reading claims: one TOML file per paper, strictly."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pydantic

from tokenmark.claims.schema import Claim, Paper
from tokenmark.errors import ClaimError, UnknownNameError


@dataclass(frozen=True, slots=True)
class Filed:
    """A claim and the paper that makes it."""

    file: str
    """Name of the paper's file, without `.toml`."""
    paper: Paper
    claim: Claim

    @property
    def name(self) -> str:
        """The claim's name among all: `titok/l32-rfid`."""
        return f"{self.file}/{self.claim.id}"


def load(folder: Path) -> list[Filed]:
    """All claims of a folder, in the order of files and of claims in them.

    Raises:
        ClaimError: a file that cannot be read, or is not of the schema; or no file at all.
    """
    paths = sorted(folder.glob("*.toml"))
    if not paths:
        raise ClaimError(f"no claims in {folder}: one TOML file per paper belongs there (docs/verify.md)")
    return [filed for path in paths for filed in read(path)]


def read(path: Path) -> list[Filed]:
    """The claims of one paper's file.

    Raises:
        ClaimError: it cannot be read, or is not of the schema.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ClaimError(f"{path} is not TOML: {error}") from error
    except OSError as error:
        raise ClaimError(f"{path} cannot be read: {error.strerror}") from error
    try:
        paper = Paper.model_validate(raw)
    except pydantic.ValidationError as error:
        raise ClaimError(f"{path}: {_first(error, raw)}") from error
    return [Filed(path.stem, paper, claim) for claim in paper.claims]


def _first(error: pydantic.ValidationError, raw: dict[str, object]) -> str:
    """The first problem, with the claim's own id in place of its number."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"]]
    claims = raw.get("claims")
    if len(place) > 1 and place[0] == "claims" and isinstance(claims, list):
        claim = claims[int(place[1])]
        place[:2] = [str(claim.get("id", f"claims.{place[1]}")) if isinstance(claim, dict) else f"claims.{place[1]}"]
    message = "unknown key" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
    return f"{'.'.join(place)}: {message}" if place else message


def chosen(
    filed: Sequence[Filed], *, papers: Sequence[str] = (), methods: Sequence[str] = (), names: Sequence[str] = ()
) -> list[Filed]:
    """The claims of these papers, methods and names; of all where none is given.

    Raises:
        UnknownNameError: a paper or method that no claim is of, or no such claim.
    """
    _check("paper with claims", papers, {each.file for each in filed})
    _check("method with claims", methods, {each.claim.subject.method or "" for each in filed} - {""})
    _check("claim", names, {each.name for each in filed})
    return [
        each
        for each in filed
        if (not papers or each.file in papers)
        and (not methods or each.claim.subject.method in methods)
        and (not names or each.name in names)
    ]


def _check(what: str, asked: Sequence[str], known: set[str]) -> None:
    for name in asked:
        if name not in known:
            raise UnknownNameError(what, name, sorted(known))
