"""A page per paper and per claim, and the list of all claims."""

from collections.abc import Iterator

from tokenmark.claims import arithmetic, report, verdict
from tokenmark.claims.judged import Judged
from tokenmark.claims.quantities import AXES
from tokenmark.claims.schema import UNSTATED, Subject
from tokenmark.leaderboard import badges, csvs, grids, html, names
from tokenmark.leaderboard.contents import Contents
from tokenmark.leaderboard.record_pages import shown
from tokenmark.leaderboard.view import Entry, Fact, File, Grid, Heading, Row, choices

CSV = "data/claims.csv"
CIRCUMSTANCES = ("protocol", "data", "samples", "resolution", "precision", "selection", "device", "batch", "attention")


def pages(contents: Contents) -> Iterator[File]:
    """The list of claims, every claim's page, every paper's page and the list of papers."""
    grid = grids.of_claims("All claims", contents.judged, CSV)
    yield html.page(
        "claims/index.html",
        "listing",
        title="Claims",
        about="What papers and their releases print, and whether it holds. Verdicts are computed from the records.",
        grid=grid,
        choices=choices(
            {"verdict": "verdict", "paper": "paper", "method": "method", "quantity": "quantity"}, grid.rows
        ),
    )
    yield File(CSV, _csv(contents))
    yield html.page(
        "papers/index.html",
        "listing",
        title="Papers",
        about="Papers whose numbers are on record here, with what was found of them.",
        grid=_papers(contents),
        choices=(),
    )
    for file, judged in contents.papers.items():
        yield _paper(file, judged)
    for each in contents.judged:
        yield _claim(each)


def _csv(contents: Contents) -> bytes:
    header = ("claim", "about", "quantity", "kind", "bound", "claimed", "upper", "unit", "verdict",
              "measured", "low", "high", "tolerance", "records")  # fmt: skip
    rows: list[list[csvs.Number]] = []
    for each in contents.judged:
        claim, (low, high) = each.claim, each.interval or (None, None)
        words = [each.filed.name, claim.about, claim.quantity, claim.kind, claim.bound]
        runs = " ".join(record.run for record in each.records)
        printed = [float(claim.value), float(claim.upper) if claim.upper is not None else None]
        rows.append([*words, *printed, claim.unit, each.verdict, each.measured, low, high, each.tolerance, runs])
    return csvs.written(header, rows)


def _papers(contents: Contents) -> Grid:
    verdicts = tuple(Heading(verdict) for verdict in badges.VERDICT_BADGES)
    return Grid(
        label="All papers",
        headings=(Heading("paper", numeric=False), Heading("title", numeric=False), Heading("year"),
                  Heading("claims"), *verdicts),
        rows=tuple(_paper_row(file, judged) for file, judged in contents.papers.items()),
    )  # fmt: skip


def _paper_row(file: str, judged: list[Judged]) -> Row:
    paper, page = judged[0].filed.paper, names.paper_page(file)
    counts = [Entry(str(n or ""), n, page if n else "") for n in report.counts(judged).values()]
    year = None if paper.year == UNSTATED else float(paper.year)
    named = (
        Entry(paper.name, href=page),
        Entry(paper.title, words=True),
        Entry("" if year is None else str(paper.year), year),
    )
    return Row((*named, Entry(str(len(judged)), len(judged), page), *counts))


def _paper(file: str, judged: list[Judged]) -> File:
    paper = judged[0].filed.paper
    grid = grids.of_claims(f"Claims of {paper.name}", judged, paper=False)
    return html.page(
        names.paper_page(file),
        "paper",
        title=paper.name,
        paper=paper,
        link=html.outside(paper.url),
        counts=_counted(judged),
        grid=grid,
        choices=choices({"verdict": "verdict", "method": "method", "quantity": "quantity"}, grid.rows),
    )


def _counted(judged: list[Judged]) -> list[tuple[int, object]]:
    counts = report.counts(judged)
    return [(counts[verdict], badge) for verdict, badge in badges.VERDICT_BADGES.items() if counts[verdict]]


def _claim(judged: Judged) -> File:
    claim, filed = judged.claim, judged.filed
    return html.page(
        names.claim_page(filed.file, claim.id),
        "claim",
        title=f"{filed.paper.name}: {claim.about}",
        judged=judged,
        claim=claim,
        badge=badges.VERDICT_BADGES[judged.verdict],
        measured="" if judged.measured is None else verdict.shown(judged.measured),
        arithmetic=arithmetic.of(judged),
        paper_page=names.paper_page(filed.file),
        source=html.outside(filed.paper.url),
        printed=list(_printed(judged)),
        circumstances=list(_circumstances(judged)),
        records=[
            Fact(record.spec.title, record.run[:12], names.record_page(record.run), code=True)
            for record in judged.records
        ],
    )


def _printed(judged: Judged) -> Iterator[Fact]:
    claim = judged.claim
    kind = {"absolute": "", "iso-accuracy": ", a ratio at equal accuracy"}.get(claim.kind, f", a {claim.kind}")
    yield Fact("quantity", f"{claim.about_quantity.title}{kind}")
    yield Fact("printed", claim.printed)
    yield Fact("kind of source", claim.origin)
    method = claim.subject.method
    yield Fact("of", _subject(claim.subject), names.method_page(method) if method else "")
    if claim.baseline is not None or claim.baseline_name is not None:
        words = [claim.baseline_name or "", f"({_subject(claim.baseline)})" if claim.baseline else ""]
        yield Fact("baseline", " ".join(filter(None, words)))
    if claim.note:
        yield Fact("note", claim.note)


def _subject(subject: Subject) -> str:
    parts = [subject.method or "a method that is not implemented here"]
    for name in ("variant", "model", "tokens", "preset"):
        if (value := getattr(subject, name)) is not None:
            parts.append(f"{name} {value}")
    parts += [f"{name} = {shown(value)}" for name, value in subject.settings.items()]
    return ", ".join(parts)


def _circumstances(judged: Judged) -> Iterator[Fact]:
    """What the source says of how it measured; what it must say and does not is told too."""
    claim = judged.claim
    asked = AXES[claim.about_quantity.family]
    for name in CIRCUMSTANCES:
        value = getattr(claim, name)
        if value is not None or name in asked:
            text = f"{value:,}" if isinstance(value, int) and name == "samples" else str(value)
            yield Fact(name, "the source does not say" if value in {None, UNSTATED} else text)
