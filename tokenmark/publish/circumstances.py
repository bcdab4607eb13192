"""Checks of where a record comes from: commit, lock, device, and the day."""

import functools
from datetime import UTC, datetime, timedelta

from tokenmark.checkout import Checkout
from tokenmark.files import sha256_bytes
from tokenmark.plan import ANY_DEVICE
from tokenmark.publish.subject import Known, Subject
from tokenmark.records import Record

SLACK = timedelta(days=1)
"""How far clocks may be apart."""


def provenance(_: Subject, record: Record, known: Known) -> str | None:
    """It was measured from a clean, known commit, in a pinned environment whose lock is the repository's."""
    environment = record.environment
    if environment.commit is None:
        return "its commit is not known: measure from a clone of the repository"
    if environment.dirty is not False:
        return "files differed from its commit (dirty): commit them, and measure again"
    if known.checkout.tracked and known.checkout.commit(environment.commit) != environment.commit:
        return (
            f"commit {environment.commit[:12]} is not in this repository: push the commit that was measured, or fetch"
            " the whole history (`git fetch --unshallow`)"
        )
    if environment.lock is None or environment.lock_sha256 is None:
        return "its environment was not pinned: measure by `nox -s bench-mini`, or with TOKENMARK_LOCK"
    if environment.lock_sha256 not in _locks(known.checkout, environment.lock):
        return f"its lock {environment.lock} is none that the repository has or had: measure in a pinned environment"
    return None


@functools.cache
def _locks(checkout: Checkout, name: str) -> frozenset[str]:
    """The hashes of a lock as it is and as it was."""
    path = checkout.root / "locks" / name
    if path.parent.name != "locks" or "/" in name:
        return frozenset()
    today = [path.read_bytes()] if path.is_file() else []
    return frozenset(map(sha256_bytes, [*today, *checkout.versions(f"locks/{name}")]))


def device(_: Subject, record: Record, __: Known) -> str | None:
    """Its device is told, and its specification and environment tell the same."""
    environment, label = record.environment, record.spec.device
    if not environment.device_name.strip():
        return "its environment names no device"
    told = f"{environment.device}: {environment.device_name}"
    wanted = told if environment.device == "cuda" else f"{told}, {environment.threads} threads"
    if record.spec.task == "structure":
        wanted = ANY_DEVICE  # what is counted is the same everywhere
    if label != wanted:
        return f"its specification says '{label}', its environment '{wanted}'"
    if environment.device == "cuda" and None in {environment.driver, environment.cuda}:
        return "it names a graphics card without driver and CUDA version"
    if not environment.threads >= 1 or not environment.cores >= 1 or environment.memory_bytes <= 0:
        return "its environment has no cores, threads or memory"
    if "torch" not in environment.libraries:
        return "its environment does not name torch's version"
    return None


def day(_: Subject, record: Record, known: Known) -> str | None:
    """It was measured at a time that has been, in UTC."""
    try:
        started = datetime.fromisoformat(record.started)
    except ValueError:
        return f"'{record.started}' is no time as ISO 8601 writes it"
    if started.tzinfo is None:
        return f"'{record.started}' names no time zone: records are in UTC"
    if started.astimezone(UTC) > known.now + SLACK:
        return f"it was measured in the future, on {record.started}"
    return None
