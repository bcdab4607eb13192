"""The marks that records and verdicts bear."""

from tokenmark.claims.judged import Verdict
from tokenmark.leaderboard.view import Badge
from tokenmark.protocols import PROTOCOLS
from tokenmark.records import Record

MINI = "mini"

VERDICT_BADGES: dict[Verdict, Badge] = {
    "reproduced": Badge("reproduced", "good", "✓", "measured within the claim's tolerance"),
    "better": Badge("better", "better", "▲", "measured better than was claimed"),
    "not reproduced": Badge("not reproduced", "bad", "✕", "measured outside the claim's tolerance"),
    "protocol differs": Badge("protocol differs", "differs", "≠", "measured, but not as the claim was"),
    "not run": Badge("not run", "open", "○", "nothing was measured that the claim could stand beside"),
}
SUPERSEDED = Badge("superseded", "differs", "↻", "a newer record of the same request stands in the tables")


def of_record(record: Record, *, device: bool = False, standing: bool = True) -> tuple[Badge, ...]:
    """What a reader must know of a record before its numbers; with `device`, also on what it was measured."""
    found = [] if standing else [SUPERSEDED]
    if record.spec.protocol == MINI:
        found.append(Badge(MINI, "mini", "", "small models on 32 x 32 digits: comparable with other mini rows only"))
    if (subset := _subset(record)) is not None:
        found.append(subset)
    if str(record.details.get("weights", "")).startswith("random"):
        found.append(Badge("random weights", "differs", "", "weights were drawn: speed alone means something"))
    if device and record.spec.task != "structure":
        name = "cpu" if record.environment.device == "cpu" else record.environment.device_name
        found.append(Badge(name, "plain", "", f"measured on {record.spec.device}"))
    return tuple(found)


def _subset(record: Record) -> Badge | None:
    """Whether a record is of fewer images than its protocol takes, or of more."""
    protocol, n = PROTOCOLS.get(record.spec.protocol), record.spec.samples
    wanted = protocol.samples if protocol else None
    if wanted is None or n in {0, wanted}:
        return None
    name = "subset" if n < wanted else "more images"
    return Badge(f"{name}: {n:,} of {wanted:,}", "bad", "◔", "not comparable with numbers of the whole protocol")
