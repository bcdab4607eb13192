"""Errors that a user can cause; each says in one line what to do."""

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")

MOST_NAMES = 40
"""Names that one line lists."""


class TokenmarkError(Exception):
    """A mistake that the user can mend. The command line prints its one line and ends with status 2."""


class UnknownNameError(TokenmarkError):
    """A suite, method, variant, measure or setting that does not exist; names the nearest that do."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        choices = sorted(known)
        near = difflib.get_close_matches(name, choices, n=3, cutoff=0.5)
        others = len(choices) - MOST_NAMES
        more = f" and {others:,} others" if others > 0 else ""
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(choices[:MOST_NAMES])}{more}"
        super().__init__(f"unknown {kind} '{name}': {hint if choices else 'there are none'}")


def chosen(kind: str, name: str, known: Mapping[str, T]) -> T:
    """What is known under a name.

    Raises:
        UnknownNameError: nothing is; the nearest names are given.
    """
    if name not in known:
        raise UnknownNameError(kind, name, known)
    return known[name]


class MissingError(TokenmarkError):
    """What others publish is not here; the message holds the command that gets it. Nothing is broken."""


class MethodError(TokenmarkError):
    """A method was asked for something that it cannot do (a length, a budget, a backbone, an image)."""


class WeightsError(TokenmarkError):
    """A weights file is missing, altered, truncated, or does not fit the model."""


class MissingWeightsError(WeightsError, MissingError):
    """Weights that others published are not on this machine; says which, and the command that gets them."""


class DataError(TokenmarkError):
    """A prepared data set is missing, altered or truncated."""


class MissingDataError(DataError, MissingError):
    """A data set that must be prepared or brought."""

    def __init__(self, message: str, name: str | None = None) -> None:
        super().__init__(message)
        self.name = name
        """The data set's name, where it is one that can be prepared."""


class SuiteError(TokenmarkError):
    """A suite file that cannot be read as one."""


class RecordError(TokenmarkError):
    """A record that was altered, truncated, or written by another version."""


class ClaimError(TokenmarkError):
    """A file of claims that cannot be read as one."""


class StorageError(TokenmarkError):
    """Something could not be written: a full disk, a read-only folder, a second run on the same folder."""


class AuditError(MethodError):
    """A call that is timed does not give what it must give: its speed says nothing."""


class BudgetError(MethodError):
    """A token budget that is impossible for this model."""


class UnsupportedBackboneError(MethodError):
    """A backbone that a reducer cannot serve, with the reason."""
