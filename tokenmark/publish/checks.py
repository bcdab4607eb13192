"""The closed list of what is checked of a record, each check with its name. Nothing else is ever a reason to refuse."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from tokenmark.errors import TokenmarkError
from tokenmark.publish import circumstances, files, names, numbers, peers, release, timings
from tokenmark.publish.subject import Known, Subject
from tokenmark.records import Record

Stage = Literal["kept", "incoming", "submitted"]
STAGES: tuple[Stage, ...] = ("kept", "incoming", "submitted")
"""How new a record is: one that is in the repository, one that a pull request brings, one that somebody submits. Each
is asked what those before it are asked, and more."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that is asked of a record."""

    id: str
    problem: Callable[[Subject, Record, Known], str | None]
    """What is wrong and what to do, in one line; None where all is well."""
    since: Stage = "kept"
    """From which stage on it is asked: what holds on the day need not hold years later."""

    @property
    def about(self) -> str:
        """What is asked, in one line."""
        return str(self.problem.__doc__).partition("\n")[0].rstrip(".")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a record, or a change to one, is not taken."""

    place: str
    """The file."""
    check: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.check}: {' '.join(self.text.split())}"


WHOLE = (Check("schema", files.schema), Check("seal", files.seal))
"""What must hold before anything that a record says is believed."""
CHECKS = (
    *WHOLE,
    Check("run-name", files.run_name),
    Check("place", files.place),
    Check("pictures", files.pictures),
    Check("method", names.method),
    Check("suite", names.suite, "incoming"),
    Check("protocol", names.protocol, "incoming"),
    Check("implementation", names.implementation, "incoming"),
    Check("weights", names.weights, "incoming"),
    Check("data", names.data, "incoming"),
    Check("samples", names.samples, "incoming"),
    Check("provenance", circumstances.provenance),
    Check("device", circumstances.device),
    Check("day", circumstances.day),
    Check("measures", numbers.measures),
    Check("values", numbers.values),
    Check("timings", timings.timings),
    Check("copy", peers.copy),
    Check("agreement", peers.agrees),
    Check("duplicate", peers.duplicate, "submitted"),
    Check("parity", release.parity, "submitted"),
)
"""All that is asked of a record."""
HISTORY = {
    "changed": "A record of the base, or a picture of one, was altered: records are never edited",
    "deleted": "A record of the base was deleted, and no newer one of the same request stands for it",
    "stray": "A file below records/ belongs to no record",
}
"""What is asked of a pull request beside its records, by `tokenmark check-results`."""


def listed() -> list[tuple[str, str]]:
    """The name of everything that may be a reason to refuse, with what is asked."""
    return [*((check.id, check.about) for check in CHECKS), *HISTORY.items()]


def refusals(subject: Subject, known: Known, stage: Stage, place: str) -> Iterator[Refusal]:
    """What is wrong with a record, one line a check; where the file itself is not whole, that alone."""
    for check in CHECKS:
        if STAGES.index(stage) < STAGES.index(check.since):
            continue
        text = _asked(check, subject, known)
        if text is not None:
            yield Refusal(place, check.id, text)
            if check in WHOLE or check.id == "method":  # nothing can be asked of what cannot be read, or is not known
                return


def _asked(check: Check, subject: Subject, known: Known) -> str | None:
    if subject.record is None:
        return subject.problem
    try:
        return check.problem(subject, subject.record, known)
    except TokenmarkError as error:  # an unknown name, and other words of the engine on what the record asks for
        return str(error)
