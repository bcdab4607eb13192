"""A page per record: its values, what was run, where and with what, and how to run it again. The record lies beside."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import JsonValue

from tokenmark.leaderboard import again, badges, grids, html, names
from tokenmark.leaderboard.contents import Contents
from tokenmark.leaderboard.view import Entry, Fact, File, Grid, Heading, Row, choices
from tokenmark.records import Record, Value


def pages(contents: Contents) -> Iterator[File]:
    """Every record's page, file and pictures, and the list of all."""
    grid = grids.of_records("All records", contents.records, contents.standing)
    yield html.page(
        "records/index.html",
        "listing",
        title="Records",
        about="Every record, those that a newer one supersedes too. A record is sealed: it is never edited.",
        grid=grid,
        choices=choices({"task": "task", "protocol": "protocol"}, grid.rows),
    )
    for record in contents.records:
        yield from _of_record(contents, record)


def _of_record(contents: Contents, record: Record) -> Iterator[File]:
    folder = contents.folders[record.run]
    pictures = []
    for name, picture in record.pictures.items():
        path = f"records/{record.run}.{names.slug(name)}.png"
        yield File(path, (folder / Path(picture.file).name).read_bytes())
        pictures.append({"path": path, "caption": picture.caption})
    yield File(names.record_file(record.run), (folder / f"{record.run}.json").read_bytes())
    claims = contents.claims_by_record.get(record.run, [])
    yield html.page(
        names.record_page(record.run),
        "record",
        title=record.spec.title,
        record=record,
        badges=badges.of_record(record, device=True, standing=record.run in contents.standing),
        values=_values(record),
        specification=list(_specification(record)),
        environment=list(_environment(record)),
        commands=again.commands(record),
        details=json.dumps(record.details, indent=1, sort_keys=True, ensure_ascii=False) if record.details else "",
        pictures=pictures,
        claims=grids.of_claims("Claims judged by this record", claims) if claims else None,
        method_page=names.method_page(record.spec.method),
        record_file=names.record_file(record.run),
    )


def _values(record: Record) -> Grid:
    return Grid(
        label=f"Values of {record.spec.title}",
        headings=(
            Heading("value", numeric=False),
            Heading("measured"),
            Heading("error", "± standard error; [95 % interval]"),
            Heading("n", "images, or timed rounds"),
        ),
        rows=tuple(
            Row(
                (
                    Entry(value.name),
                    Entry(f"{value.value:.6g}", value.value),
                    Entry(_error(value), value.se),
                    Entry(f"{value.n:,}", value.n),
                ),
                {"anchor": names.value_anchor(value.name)},
            )
            for value in record.values
        ),
    )


def _error(value: Value) -> str:
    parts = [f"± {value.se:.3g}"] if value.se is not None else []
    if value.interval is not None:
        parts.append(f"[{value.interval[0]:.6g}, {value.interval[1]:.6g}]")
    return " ".join(parts)


def _specification(record: Record) -> Iterator[Fact]:
    spec = record.spec
    yield Fact("task", spec.task)
    yield Fact("method", spec.method, names.method_page(spec.method))
    yield from _given(("variant", spec.variant), ("classifier", spec.model), ("budget", spec.budget))
    for name, value in spec.settings.items():
        yield Fact(f"setting {name}", shown(value), code=True)
    yield from _given(("tokens", spec.tokens))
    yield Fact("protocol", f"{spec.protocol} v{spec.protocol_version}")
    yield Fact("images", f"{spec.samples:,}" if spec.samples else "random ones")
    yield Fact("precision", spec.precision)
    yield Fact("batch size", str(spec.batch_size))
    yield Fact("seed", str(spec.seed))
    for name, value in spec.timing.items():
        yield Fact(f"timing {name}", shown(value), code=True)
    yield Fact("implementation", spec.implementation, code=True)
    for name, digest in spec.weights.items():
        yield Fact(f"weights {name}", digest, code=True)
    for name, digest in spec.data.items():
        yield Fact(f"data {name}", digest, code=True)
    yield Fact("protocol's hash", spec.protocol_sha256, code=True)
    yield Fact("suite", spec.suite)
    yield Fact("by", spec.site)


def _environment(record: Record) -> Iterator[Fact]:
    spec, found = record.spec, record.environment
    dirty = " with uncommitted changes" if found.dirty else ""
    yield Fact("device", spec.device)
    yield Fact("commit", f"{found.commit or 'unknown'}{dirty}", code=found.commit is not None)
    digest = f", SHA-256 {found.lock_sha256}" if found.lock_sha256 else ""
    yield Fact("pinned requirements", f"{found.lock}{digest}" if found.lock else "none: not a pinned environment")
    yield Fact("Tokenmark", spec.tokenmark)
    yield Fact("Python", found.python)
    yield Fact("platform", found.platform)
    yield Fact("cores and threads", f"{found.cores} and {found.threads}")
    yield Fact("memory", f"{found.memory_bytes / 2**30:.1f} GiB")
    yield from _given(("driver", found.driver), ("CUDA", found.cuda))
    yield Fact("TF32", "allowed" if found.tf32 else "not allowed")
    yield Fact("attention kernels", ", ".join(found.attention_backends))
    yield Fact("libraries", ", ".join(f"{name} {version}" for name, version in sorted(found.libraries.items())))
    yield Fact("started", record.started)
    phases = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in record.durations.items())
    yield Fact("took", f"{sum(record.durations.values()):.1f} s: {phases}")
    yield Fact("peak memory", f"{record.peak_memory_bytes / 2**20:,.0f} MiB")


def _given(*facts: tuple[str, str | int | None]) -> Iterable[Fact]:
    return [Fact(name, str(text)) for name, text in facts if text not in {None, ""}]


def shown(value: JsonValue) -> str:
    """A setting's value as a reader would write it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
