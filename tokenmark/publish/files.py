"""Checks of a record's file: its form, its seal, its name, its place and its pictures."""

from pathlib import Path

from tokenmark.files import sha256_of
from tokenmark.publish.subject import Known, Subject
from tokenmark.records import Record

PNG = b"\x89PNG\r\n\x1a\n"


def schema(subject: Subject, _: Record, __: Known) -> str | None:
    """It is whole JSON of today's schema."""
    return subject.problem if subject.record is None else None


def seal(subject: Subject, record: Record, _: Known) -> str | None:
    """Its run is the hash of its specification, its seal that of its content, and its bytes are as Tokenmark writes."""
    if subject.problem is not None:
        return subject.problem
    if record.to_json() != subject.data:
        return "its bytes are not as Tokenmark writes them: restore the file that the run wrote"
    return None


def run_name(subject: Subject, record: Record, _: Known) -> str | None:
    """Its file is called by its run."""
    if subject.path.name == f"{record.run}.json":
        return None
    return f"the file must be called {record.run}.json: rename it back"


def place(subject: Subject, record: Record, known: Known) -> str | None:
    """It is a file of its own, where its specification says."""
    if subject.path.is_symlink():
        return "it is a link: put the file itself there"
    wanted = known.records / record.spec.suite / record.spec.method
    if subject.path.resolve().parent == wanted.resolve():
        return None
    return f"it must lie in records/{record.spec.suite}/{record.spec.method}/: move it there"


def pictures(subject: Subject, record: Record, _: Known) -> str | None:
    """Its pictures lie beside it, and are those that it was written with."""
    for name, picture in record.pictures.items():
        path = subject.path.parent / picture.file
        if picture.file != f"{record.run}.{name}.png":
            return f"picture {name} must be called {record.run[:12]}....{name}.png, not {Path(picture.file).name}"
        if path.is_symlink() or not path.is_file():
            return f"picture {picture.file} is missing: put the file itself beside the record"
        if sha256_of(path) != picture.sha256:
            return f"picture {picture.file} was altered: restore the file that the run wrote"
        with path.open("rb") as file:
            if file.read(len(PNG)) != PNG:
                return f"picture {picture.file} is no PNG"
    return None
