"""What was prepared, in a few lines."""

from collections.abc import Iterator
from pathlib import Path

from tokenmark.data.prepare import FILES
from tokenmark.data.prepared import Manifest

PLAIN = ("JPEG RGB", "JPEG L")
"""Files whose colours need no word: colour, and grey that becomes grey."""
NAMED = 10
"""Names that a line shows of one kind."""


def summary(manifest: Manifest, place: Path) -> Iterator[str]:
    """Lines on a data set that lies at `place`: its size, files that were converted, and what it may be used for."""
    total, height, width, _ = manifest.shape
    yield f"{manifest.name}: {total:,} images of {height} x {width}, {manifest.images_sha256[:12]}, in {place}"
    for kind in manifest.origin.found if manifest.origin else ():
        if kind not in PLAIN:
            names = _names(place / manifest.split / FILES, kind)
            more = f", ... (see {place / manifest.split / FILES})" if len(names) > NAMED else ""
            yield f"converted to RGB from {kind}: {', '.join(names[:NAMED])}{more}"
    if manifest.subset is not None:
        yield f"A subset, {total:,} of {manifest.subset.of:,} images: its records are marked as not comparable."


def _names(path: Path, kind: str) -> list[str]:
    rows = (line.split("\t") for line in path.read_text(encoding="utf-8").splitlines())
    return [name for name, _, _, found in rows if found == kind]
