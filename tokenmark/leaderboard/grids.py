"""Tables of records and of claims, as every page shows them."""

from collections.abc import Iterable, Sequence

from tokenmark.cells import Column
from tokenmark.claims.judged import VERDICTS, Judged
from tokenmark.claims.quantities import decimals
from tokenmark.leaderboard import badges, names
from tokenmark.leaderboard.view import Entry, Grid, Heading, Row
from tokenmark.records import Record
from tokenmark.tracks import Group, Track


def of_group(track: Track, group: Group, csv: str = "", *, device: bool = False) -> Grid:
    """The rows of a group in their order; every number leads to where its record says it."""
    columns = track.filled(group)
    return Grid(
        label=f"{track.title}: {group.heading}",
        headings=tuple(Heading(column.title, column.help, column.numeric) for column in columns),
        rows=tuple(_record_row(columns, record, device=device) for record in group.records),
        csv=csv,
    )


def _record_row(columns: Sequence[Column], record: Record, *, device: bool) -> Row:
    entries = []
    for place, column in enumerate(columns):
        cell = column.cell(record)
        marks = badges.of_record(record, device=device) if place == 0 else ()
        href = names.value_place(record.run, cell.source) if cell.text else ""
        entries.append(Entry(cell.text, cell.number, href, marks))
    return Row(tuple(entries), {"run": record.run})


def of_records(label: str, records: Iterable[Record], standing: frozenset[str]) -> Grid:
    """Records without their numbers."""
    return Grid(
        label=label,
        headings=(
            Heading("record", "method, variant and what sets the run apart", numeric=False),
            Heading("task", numeric=False),
            Heading("protocol", numeric=False),
            Heading("suite", numeric=False),
            Heading("images", "0: random ones"),
            Heading("measured", "day, UTC", numeric=False),
        ),
        rows=tuple(
            Row(
                (
                    Entry(
                        record.spec.title,
                        href=names.record_page(record.run),
                        badges=badges.of_record(record, device=True, standing=record.run in standing),
                    ),
                    Entry(record.spec.task),
                    Entry(f"{record.spec.protocol} v{record.spec.protocol_version}"),
                    Entry(record.spec.suite),
                    Entry(f"{record.spec.samples:,}", record.spec.samples),
                    Entry(record.started[:10]),
                ),
                {"run": record.run, "task": record.spec.task, "protocol": record.spec.protocol},
            )
            for record in records
        ),
    )


def of_claims(label: str, judged: Iterable[Judged], csv: str = "", *, paper: bool = True) -> Grid:
    """Claims with their verdicts, those that were measured first; `paper` says of whom each is."""
    headings = (
        Heading("claim", "what the number is of, in the paper's words", numeric=False),
        Heading("claimed", "as printed"),
        Heading("measured", "in the claim's unit, with its 95 % interval where an error is known"),
        Heading("verdict", "computed from the records whenever this site is made", numeric=False),
        *((Heading("paper", numeric=False),) if paper else ()),
        Heading("method", numeric=False),
    )
    ordered = sorted(judged, key=lambda each: each.verdict == "not run")
    return Grid(label=label, headings=headings, rows=tuple(_claim_row(each, paper=paper) for each in ordered), csv=csv)


def _claim_row(judged: Judged, *, paper: bool) -> Row:
    claim, file = judged.claim, judged.filed.file
    method, name = claim.subject.method or "", judged.filed.paper.name
    page = names.claim_page(file, claim.id)
    record = names.record_page(judged.records[0].run) if judged.records else ""
    return Row(
        (
            Entry(f"{claim.about}: {claim.about_quantity.title}", href=page, words=True),
            Entry(judged.claimed, float(claim.value), href=page),
            Entry(measured(judged), judged.measured, href=record),
            Entry(judged.verdict, VERDICTS.index(judged.verdict), badges=(badges.VERDICT_BADGES[judged.verdict],)),
            *((Entry(name, href=names.paper_page(file), words=True),) if paper else ()),
            Entry(method, href=names.method_page(method) if method else ""),
        ),
        {
            "verdict": judged.verdict,
            "paper": name,
            "method": method or "not implemented",
            "quantity": claim.about_quantity.title,
        },
    )


def measured(judged: Judged) -> str:
    """What was measured, with one digit more than was printed; a count has no digits after its point."""
    if judged.measured is None:
        return ""
    printed = decimals(judged.claim.value)
    digits = printed + 1 if printed or judged.interval or not judged.measured.is_integer() else 0
    text = f"{judged.measured:,.{digits}f}"
    if judged.interval is not None:
        low, high = judged.interval
        text += f" [{low:,.{digits}f}, {high:,.{digits}f}]"
    return text
