"""The check of a method beside its official release, by the vectors in the repository."""

import functools
from pathlib import Path

from tokenmark import parity as vectors
from tokenmark import registry
from tokenmark.errors import TokenmarkError
from tokenmark.publish.subject import Known, Subject
from tokenmark.records import Record

FOLDER = Path("tests/vectors")


def parity(_: Subject, record: Record, known: Known) -> str | None:
    """Its method gives what its release gives, where there are vectors of it (`tokenmark parity`)."""
    method = record.spec.method
    files = tuple(sorted((known.checkout.root / FOLDER).glob(f"{method}__*.json")))
    if method not in registry.parities() or not files:
        known.note(f"{method}: no vectors of a release here, so nothing shows that it is the published method")
        return None
    known.say(f"parity of {method} with its release: {len(files)} vectors")
    return _compared(files)


@functools.cache
def _compared(files: tuple[Path, ...]) -> str | None:
    """The first departure among vectors; computed once a process."""
    for file in files:
        try:
            report = vectors.compare(vectors.load(file))
        except TokenmarkError as error:
            return str(error)
        if report.mismatches:
            return f"{report.title} departs from its release: {report.mismatches[0]} (`tokenmark parity {file.name}`)"
    return None
