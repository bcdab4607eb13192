"""A submission: records that passed every check, in the repository's layout, with the text of a pull request."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenmark.checkout import Checkout
from tokenmark.errors import TokenmarkError
from tokenmark.files import writing
from tokenmark.publish import checks
from tokenmark.publish.checks import Refusal
from tokenmark.publish.peers import RESULTS
from tokenmark.publish.subject import Known, Subject
from tokenmark.records import Record
from tokenmark.recordview import path_of
from tokenmark.store import Results

TEXT = "pull-request.md"
MARK = "<!-- written by tokenmark submit -->"
HEADLINE = 4
"""Values of a record that the text shows; the record has all."""


class SubmissionError(TokenmarkError):
    """Records that cannot be submitted, or a folder that is no place for them."""


def found(results: Results, names: Iterable[str]) -> list[Path]:
    """The files that are meant: paths, or the beginnings of runs' names; each once.

    Raises:
        TokenmarkError: a name is no record's, or several records'.
    """
    paths = (Path(name) if name.endswith(".json") else path_of(results, name) for name in names)
    return list(dict.fromkeys(path.resolve() for path in paths))


def check(paths: Sequence[Path], results: Results, known: Known) -> list[Refusal]:
    """All that is wrong with these records; none where they may be submitted.

    Raises:
        RecordError: a file cannot be read.
    """
    subjects = [Subject.at(path) for path in paths]
    folders = {results.root.resolve(), (known.checkout.root / RESULTS).resolve()}
    others = [path for folder in sorted(folders) for path in Results(folder).paths() if path.resolve() not in paths]
    readable = [each.record for each in map(Subject.at, others) if not each.problem and each.record]
    known.settled = frozenset(record.run for record in readable)
    known.existing = [*readable, *(each.record for each in subjects if each.record and not each.problem)]
    refused: list[Refusal] = []
    for subject in subjects:
        known.records = subject.path.parent.parent.parent
        known.say(f"checking {subject.path.stem[:12]}")
        refused += checks.refusals(subject, known, "submitted", str(subject.path))
    return refused


def write(paths: Sequence[Path], folder: Path, known: Known) -> list[Record]:
    """Write the submission; gives its records. What is there appears whole, or not at all.

    Raises:
        SubmissionError: the folder holds something else.
        StorageError: it cannot be written; an earlier submission stays as it was.
    """
    if folder.exists() and not _replaceable(folder):
        raise SubmissionError(f"{folder} holds something that is no submission: choose another place with --out")
    records = [record for path in paths if (record := Subject.at(path).record)]
    with writing(folder), contextlib.ExitStack() as stack:
        folder.absolute().parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=folder.absolute().parent, prefix=f".{folder.name}."))
        stack.callback(shutil.rmtree, made, ignore_errors=True)
        for path, record in zip(paths, records, strict=True):
            place = Results(made / "new" / RESULTS).path(record.spec).parent
            place.mkdir(parents=True, exist_ok=True)
            for file in (path, *(path.parent / picture.file for picture in record.pictures.values())):
                shutil.copyfile(file, place / file.name)
        (made / "new" / TEXT).write_text(text(records, list(known.notes)), encoding="utf-8")
        if folder.exists():
            folder.replace(made / "old")
        (made / "new").replace(folder)
    return records


def _replaceable(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    page = folder / TEXT
    return not any(folder.iterdir()) or (page.is_file() and page.read_text(encoding="utf-8").startswith(MARK))


def title(records: Sequence[Record]) -> str:
    """The pull request's title."""
    methods = list(dict.fromkeys(record.spec.method for record in records))
    named = ", ".join(methods[:3]) + (f" and {len(methods) - 3} more" if len(methods) > 3 else "")
    return f"{len(records)} record{'s' if len(records) > 1 else ''}: {named}"


def text(records: Sequence[Record], notes: Sequence[str]) -> str:
    """The pull request's text: what was measured, on what, by whom, how to measure it again, and what was checked."""
    parts = [MARK, f"# {title(records)}", "", "| run | suite | what | values |", "|---|---|---|---|"]
    parts += [
        f"| `{record.run[:12]}` | {record.spec.suite} | {record.spec.title} | {_values(record)} |" for record in records
    ]
    parts += ["", "## On what, by whom", "", *dict.fromkeys(map(_machine, records))]
    parts += ["", "## To measure it again", "", "```console"]
    parts += [f"$ nox -s tokenmark -- reproduce {record.run[:12]}" for record in records]
    parts += ["```", "", "## Checked by `tokenmark submit`", ""]
    parts += [f"- [x] {check.id}: {check.about}" for check in checks.CHECKS]
    if notes:
        parts += ["", "To be known:", "", *(f"- {note}" for note in notes)]
    warnings = dict.fromkeys(warning for record in records for warning in record.warnings)
    if warnings:
        parts += ["", "The records' own warnings:", "", *(f"- {warning}" for warning in warnings)]
    return "\n".join(parts) + "\n"


def _values(record: Record) -> str:
    shown = ", ".join(f"{value.name} {value.value:.4g}" for value in record.values[:HEADLINE])
    more = len(record.values) - HEADLINE
    return f"{shown} and {more} more" if more > 0 else shown


def _machine(record: Record) -> str:
    environment = record.environment
    return (
        f"- {record.spec.device}, by site `{record.spec.site}`, at commit `{(environment.commit or '')[:12]}` in"
        f" `{environment.lock}`, Python {environment.python}, torch {environment.libraries.get('torch')}"
    )


def commands(records: Sequence[Record], folder: Path, checkout: Checkout) -> list[str]:
    """The commands that open the pull request, to be run in the clone."""
    branch = f"records-{records[0].run[:12]}"
    first = f"cd {checkout.root}" if Path.cwd() != checkout.root else ""
    return [
        *filter(None, [first]),
        f"git switch --create {branch}",
        f"cp -r {folder.resolve()}/{RESULTS}/. {RESULTS}/",
        *(f"git add {Results(Path(RESULTS)).path(record.spec).parent}/{record.run}.*" for record in records),
        f'git commit --message "{title(records)}"',
        f"git push --set-upstream origin {branch}",
        f'gh pr create --title "{title(records)}" --body-file {folder.resolve()}/{TEXT}',
    ]
