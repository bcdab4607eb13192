"""The commands that make a record again."""

import json
import shlex

from tokenmark import speedsuite
from tokenmark.protocols import PROTOCOLS
from tokenmark.records import Record


def commands(record: Record) -> list[str]:
    """Lines for a shell in a checkout of Tokenmark; names of others are quoted."""
    commit = record.environment.commit
    lines = [shlex.join(["git", "checkout", commit])] if commit else []
    words = _throughput(record) if record.spec.suite == speedsuite.NAME else _run(record)
    device = ["--device", "cpu"] if record.environment.device == "cpu" else []
    return [*lines, f"nox -s tokenmark -- {shlex.join([*words, *device])}"]


def _run(record: Record) -> list[str]:
    spec = record.spec
    wanted = PROTOCOLS[spec.protocol].samples if spec.protocol in PROTOCOLS else None
    limit = ["--limit", str(spec.samples)] if wanted is not None and 0 < spec.samples < wanted else []
    return ["run", spec.suite, "--method", spec.method, *limit]


def _throughput(record: Record) -> list[str]:
    """A record of `tokenmark throughput`, whose suite is made from its own command line."""
    spec = record.spec
    if spec.task == "tokenization":
        words = ["--tokenizers", f"{spec.method}/{spec.variant}" if spec.variant else spec.method]
    else:
        words = ["--models", spec.model or "", "--methods", spec.method]
        for name, value in spec.settings.items():
            words += ["--set", f"{spec.method}.{name}={json.dumps(value)}"]
    timing = spec.timing
    for option in ("batches", "min_seconds", "min_rounds"):
        if option in timing:
            value = timing[option]
            text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            words += [f"--{option.replace('_', '-')}", text]
    compiled = ["--compiled"] if timing.get("compiled") else []
    return ["throughput", *words, "--precision", spec.precision, "--seed", str(spec.seed), *compiled]
