"""Checks of a record beside others: that it is no copy, and that one experiment has one result."""

from tokenmark import agreement
from tokenmark.publish.subject import Known, Subject
from tokenmark.records import Record
from tokenmark.store import Results

RESULTS = "results"
"""The repository's own folder of records."""


def copy(_: Subject, record: Record, known: Known) -> str | None:
    """It is a measurement of its own: no other record has its start, durations and values."""
    if record.spec.task == "structure":
        return None  # counted in milliseconds, the same for all: two networks of one shape may well share all of it
    for other in known.others(record):
        if (other.started, other.durations, other.values) == (record.started, record.durations, record.values):
            return f"it is a copy of {other.run[:12]} ({other.spec.title}, by {other.spec.site}) under another name"
    return None


def duplicate(subject: Subject, record: Record, known: Known) -> str | None:
    """The repository has no record of this very run yet."""
    checkout = known.checkout
    path = Results(checkout.root / RESULTS).path(record.spec)
    if path.is_file() and path.read_bytes() != subject.data:
        return f"the repository has another record of this run, {checkout.relative(path)}: nobody measures a run twice"
    if path.is_file() and checkout.ask("ls-files", "--error-unmatch", "--", checkout.relative(path)):
        return "it is in the repository already: there is nothing to submit"
    return None


def agrees(_: Subject, record: Record, known: Known) -> str | None:
    """Its values are those of earlier records of the same experiment, within both errors."""
    for other in known.peers(record):
        later = (other.started, other.run) > (record.started, record.run)
        if record.run in known.settled and (later or other.run not in known.settled):
            continue  # of two the newcomer is told, of two that were here before the later one
        same_device = other.spec.device == record.spec.device
        for value in record.values:
            beside = other.value(value.name)
            problem = beside and agreement.contradiction(value, beside, same_device=same_device)
            if problem:
                return f"{problem} (record {other.run[:12]} of the same experiment, by {other.spec.site})"
    return None
