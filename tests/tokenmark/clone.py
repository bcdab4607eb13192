"""A small clone of the repository with measured records, and what cheats do to them."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import torch

from tokenmark import plan, runner, suites
from tokenmark.checkout import Checkout
from tokenmark.display import Display
from tokenmark.publish import checks
from tokenmark.publish.subject import Known, Subject
from tokenmark.records import Record
from tokenmark.spec import RunSpec
from tokenmark.store import Results
from tokenmark.tasks.base import Context

SUITE = """
version = 1
title = "Small"
protocol = "mini"
batch_size = 50
timing = { batches = [1, 2], min_seconds = 0.02, min_rounds = 3 }
jobs = [
  { task = "reconstruction", method = "jpeg", variant = "q10", measures = ["rfid", "psnr", "ssim", "rate"] },
  { task = "classification", method = "strided", model = "vit-mini", settings = { keep_rate = 0.7 } },
  { task = "structure", method = "titok", variant = "mini-16" },
]
"""
LOCK = b"torch==0.0.0 --hash=sha256:00\n"


def git(folder: Path, *words: str) -> str:
    """Run git as somebody."""
    who = ("-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", "-C", str(folder), *who, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def commit(folder: Path, text: str) -> str:
    """Commit all that is there."""
    git(folder, "add", "--all")
    git(folder, "commit", "--allow-empty", "--quiet", "--message", text)
    return git(folder, "rev-parse", "HEAD")


def begin(root: Path) -> str:
    """A clone with a suite and a lock; gives its commit."""
    (root / "suites").mkdir(parents=True)
    (root / "suites" / "small.toml").write_text(SUITE, encoding="utf-8")
    (root / "locks").mkdir()
    (root / "locks" / "bench.txt").write_bytes(LOCK)
    git(root, "init", "--quiet", "--initial-branch=main")
    return commit(root, "A suite and a lock")


def measure(root: Path, head: str, data: Path) -> None:
    """Run the suite, and say of its records that they come from that clean commit and that lock."""
    results = Results(root / "results")
    context = Context(torch.device("cpu"), data)
    planned = plan.plan(suites.load(root / "suites" / "small.toml"), "small", context, "site-a")
    with results.locked():
        summary = runner.run_all(planned, results, context, Display())
    assert not summary.failures
    pinned = {"commit": head, "dirty": False, "lock": "bench.txt", "lock_sha256": hashlib.sha256(LOCK).hexdigest()}
    for record in results.all():
        environment = record.environment.model_copy(update=pinned)
        path = results.path(record.spec)
        path.write_bytes(record.model_copy(update={"environment": environment}).sealed().to_json())
    for left in (results.root / ".lock", results.root / ".partial"):
        shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)


def of(root: Path, method: str) -> Record:
    """The record of a method."""
    (record,) = [record for record in Results(root / "results").all() if record.spec.method == method]
    return record


def resealed(record: Record, **changes) -> Record:
    """A record altered by somebody who knows how records are sealed; `spec` and `environment` are changes to those."""
    spec = RunSpec.model_validate({**record.spec.model_dump(), **changes.pop("spec", {})})
    environment = record.environment.model_copy(update=changes.pop("environment", {}))
    pictures = {
        name: picture.model_copy(update={"file": f"{spec.run}.{name}.png"}) for name, picture in record.pictures.items()
    }
    facts = {"spec": spec, "run": spec.run, "environment": environment, "pictures": pictures, **changes}
    return record.model_copy(update=facts).sealed()


def valued(record: Record, name: str, **changes) -> Record:
    """A record with one value altered, sealed again."""
    values = (value.model_copy(update=changes) if value.name == name else value for value in record.values)
    return resealed(record, values=tuple(values))


def put(root: Path, record: Record, old: Record | None = None) -> Path:
    """Write a record where it belongs, in the place of `old` if that is named; its pictures are those of the method."""
    results = Results(root / "results")
    path = results.path(record.spec)
    path.parent.mkdir(parents=True, exist_ok=True)
    for name, picture in record.pictures.items():
        found = next(results.records.glob(f"*/*/*.{name}.png"), None)
        target = path.parent / Path(picture.file).name
        if found is not None and found != target:
            shutil.copyfile(found, target)
    if old is not None:
        for left in results.path(old.spec).parent.glob(f"{old.run}.*"):
            if record.run != old.run:
                left.unlink()
    path.write_bytes(record.to_json())
    return path


def refused(root: Path, path: Path, stage: checks.Stage = "incoming") -> dict[str, str]:
    """What is said of a record beside all others in the clone, by check."""
    results = Results(root / "results")
    subjects = {other: Subject.at(other) for other in results.paths()}
    readable = {other: each.record for other, each in subjects.items() if not each.problem and each.record}
    known = Known(
        Checkout.around(root),
        results.records,
        existing=list(readable.values()),
        settled=frozenset(record.run for other, record in readable.items() if (other != path) == (stage != "kept")),
    )
    return {each.check: each.text for each in checks.refusals(Subject.at(path), known, stage, str(path))}
