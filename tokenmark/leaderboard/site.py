"""Write the leaderboard: a folder of linked pages that needs no network, made from the results folder alone."""

from collections.abc import Iterator
from pathlib import Path

from tokenmark.claims import files, verdict
from tokenmark.claims.commands import Commands
from tokenmark.claims.judged import Judged
from tokenmark.leaderboard import claim_pages, folder, html, index_page, method_pages, record_pages, track_pages
from tokenmark.leaderboard.contents import Contents, stored
from tokenmark.leaderboard.view import File
from tokenmark.records import Record
from tokenmark.store import Results


def write(results: Results, out: Path) -> Path:
    """Write the site of all records and claims in `results` into the folder `out`, in place of what it holds.

    Returns:
        The index's path.

    Raises:
        RecordError: a record was altered or is truncated: a page must not show it.
        ClaimError: a file of claims cannot be read as one.
        StorageError: the site cannot be written; the one that was there stays.
    """
    records, folders = stored(results)
    contents = Contents(records, folders, judged(results.root / "claims", records))
    folder.replace(out, pages(contents))
    return out / "index.html"


def judged(claims: Path, records: tuple[Record, ...]) -> tuple[Judged, ...]:
    """The verdicts on all claims of a folder; none where it has no claims, for a results folder need not have any.

    What would run the others is told by the suites that lie beside the results folder, as in the repository.
    """
    if not any(claims.glob("*.toml")):
        return ()
    commands = Commands.of_folder(claims.parent.resolve().parent / "suites")
    return tuple(verdict.judge(files.load(claims), records, commands))


def pages(contents: Contents) -> Iterator[File]:
    """All files of the site: the same bytes for the same contents."""
    yield from html.assets()
    yield index_page.page(contents)
    yield from track_pages.pages(contents)
    yield from method_pages.pages(contents)
    yield from claim_pages.pages(contents)
    yield from record_pages.pages(contents)
