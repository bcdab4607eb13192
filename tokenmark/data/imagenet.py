"""What ImageNet is made of (ILSVRC 2012): names, classes and counts that a source must agree with."""

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

CLASSES = 1000
SUFFIXES = (".jpeg", ".jpg", ".png")
WNID = re.compile(r"n\d{8}")


@dataclass(frozen=True, slots=True)
class Collection:
    """One split as it was published."""

    name: str
    split: str
    title: str
    images: int
    per_class: tuple[int, int]
    """Fewest and most images of a class."""
    folders: tuple[str, ...]
    """What a folder of this split is called where several stand side by side; shards begin with these words."""
    stem: re.Pattern[str]
    """A file's own name, without suffix."""

    def canonical(self, file_name: str) -> tuple[str, str | None] | None:
        """A file's published name, and its class (WordNet id) where that is in the name: the hub writes it behind.

        None for a name that no published file has. `ILSVRC2012_val_00000001_n01751748.JPEG` gives
        `ILSVRC2012_val_00000001.JPEG` and `n01751748`.
        """
        path = PurePosixPath(file_name)
        found = self.stem.fullmatch(path.stem)
        if found is None or path.suffix.lower() not in SUFFIXES:
            return None
        return f"{found['stem']}.JPEG", found["wnid"]

    def published(self) -> Iterable[str]:
        """The names of all files, where they follow from a count; nothing where they do not."""
        return (validation_name(number) for number in range(1, 50_001)) if self.split == "val" else ()


def validation_name(number: int) -> str:
    """The published name of a validation image, by its number from 1."""
    return f"ILSVRC2012_val_{number:08d}.JPEG"


COLLECTIONS = {
    collection.name: collection
    for collection in (
        Collection(
            name="imagenet-val",
            split="val",
            title="ImageNet validation set (ILSVRC 2012)",
            images=50_000,
            per_class=(50, 50),
            folders=("val", "validation"),
            stem=re.compile(r"(?P<stem>ILSVRC2012_val_000(?!00000)(?:[0-4]\d{4}|50000))(?:_(?P<wnid>n\d{8}))?"),
        ),
        Collection(
            name="imagenet-train",
            split="train",
            title="ImageNet training set (ILSVRC 2012)",
            images=1_281_167,
            per_class=(732, 1300),
            folders=("train",),
            stem=re.compile(r"(?P<stem>(?P<wnid>n\d{8})_\d+)(?:_n\d{8})?"),
        ),
    )
}


def prepared_name(collection: str, side: int, crop: str) -> str:
    """The name of a prepared data set: `imagenet-val-256-adm`."""
    return f"{collection}-{side}-{crop}"


@functools.cache
def wnids() -> tuple[str, ...]:
    """The WordNet ids of the classes; a class's index is its place in their sorted order."""
    return tuple(Path(__file__).with_name("imagenet-wnids.txt").read_text(encoding="ascii").split())


@functools.cache
def class_of() -> dict[str, int]:
    """Class index by WordNet id."""
    return {wnid: index for index, wnid in enumerate(wnids())}
