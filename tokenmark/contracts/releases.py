"""Where a method comes from, what its authors published, and how their files hold it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Paper:
    """Where a method comes from."""

    title: str
    authors: str
    """Names in the paper's order, separated by commas."""
    year: int
    url: str

    @property
    def citation(self) -> str:
        """Family name of the first author, year and title."""
        names = self.authors.split(",")
        others = " et al." if len(names) > 1 else ""
        return f"{names[0].split()[-1]}{others} {self.year}, {self.title}"


@dataclass(frozen=True, slots=True)
class Release:
    """One file of weights that a method's authors published on the Hugging Face hub."""

    repo: str
    """As the hub names it: `owner/name`."""
    file: str = "model.safetensors"
    """Its path in the repository: safetensors, or what torch.save wrote of named tensors and nothing else."""
    revision: str | None = None
    """The commit that is meant, 40 hex digits; None where none is known."""
    sha256: str | None = None
    """Of the file at that commit; None where nobody could check it. Who downloads it then pins it first."""
    licence: str = ""

    @property
    def key(self) -> str:
        """The name under which pins and records hold it."""
        return f"{self.repo}/{self.file}"


@dataclass(frozen=True, slots=True)
class Part:
    """A network inside a tokenizer whose weights its release leaves out, for others have published them.

    The tokenizer takes them by `load_part(name, tensors)`, under the keys of that release, strictly; `draw_parts()`
    makes do with drawn ones, for its speed.
    """

    name: str
    """As `tokenmark weights` takes it."""
    release: Release


@dataclass(frozen=True, slots=True)
class Layout:
    """How a release's checkpoint holds a model: where its tensors lie, and what they are called.

    A file is read as data by these rules alone; nothing in it decides what is built.
    """

    wrappers: tuple[str, ...] = ()
    """Names under which the tensors may lie, the first that is there wins (`ema`, then `model`); none: at the top."""
    ignored: tuple[str, ...] = ()
    """Prefixes of keys that training left in the file and that the model has no use for (`loss.`)."""
    shadow: str = ""
    """Prefix of averaged weights that are to be taken in place of the plain ones, their names without dots
    (`model_ema.`: Lightning's LitEma)."""
    renames: tuple[tuple[str, str], ...] = ()
    """Regular expressions and what stands for their matches, applied one after the other: release's key to module's."""

    def module_key(self, key: str) -> str:
        """The module's name of a release's `key`."""
        for pattern, replacement in self.renames:
            key = re.sub(pattern, replacement, key)
        return key


@dataclass(frozen=True, slots=True)
class Variant:
    """One named size of a method."""

    config: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the architecture, as in the release's configuration."""
    weights: str | None = None
    """Name of a file in the package's `weights/` folder, without `.safetensors`; None if it has none there."""
    release: Release | None = None
    """Where its authors published its weights; nothing is downloaded unless somebody asks for it."""
    parts: tuple[Part, ...] = ()
    """What the release leaves out, and a run needs."""
    tokenizer: str | None = None
    """For a generator: the tokenizer it writes for, as `method/variant`."""
    note: str = ""
