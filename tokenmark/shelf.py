"""The shelf: the folder where weights that others published lie, and from where every run takes them.

- `<owner>--<name>/<file>`: a file of a repository on the Hugging Face hub;
- `<name>`: a file with an address of its own (Inception, LPIPS' backbones);
- `<method>--<variant>.ckpt`, or another suffix: a checkpoint that no hub has, put here by hand;
- `pins.toml`: which bytes are meant (see `tokenmark.pins`).
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

import torch

from tokenmark import pins
from tokenmark.contracts import Release
from tokenmark.errors import MissingWeightsError, WeightsError
from tokenmark.files import digest_of
from tokenmark.pins import Pin
from tokenmark.weights import Published, Weights

FOLDER_VARIABLE = "TOKENMARK_WEIGHTS"
SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".pth.tar")
"""Of checkpoints that lie here by hand."""


def default_folder() -> Path:
    """The folder in TOKENMARK_WEIGHTS, else `weights` in the current one."""
    return Path(os.environ.get(FOLDER_VARIABLE) or "weights").expanduser()


@dataclass(frozen=True, slots=True)
class Shelf:
    """One folder of published weights; nothing is downloaded into it unless `download` asks for it."""

    folder: Path = field(default_factory=default_folder)
    download: bool = False

    def find(self, item: Published, name: str) -> Weights:
        """The weights called `name` (as `tokenmark weights` takes it), their bytes those of the pin if there is one.

        A file that nobody pinned is taken as it is: its SHA-256 stands in every record.

        Raises:
            MissingWeightsError: they are not here, and were not to be downloaded.
            WeightsError: their bytes are not the pinned ones, or they cannot be downloaded.
        """
        pin = self.pin(item)
        path = self.path(item)
        if path is None:
            path = self._fetched(item, pin, name)
        digest = digest_of(path)
        if pin is not None and digest != pin.sha256:
            raise WeightsError(
                f"{path} is another file or truncated: its SHA-256 is {digest[:12]}..., pinned is"
                f" {pin.sha256[:12]}...; delete it and run `tokenmark weights fetch {name}`, or pin yours in"
                f" {self.folder / pins.FILE}"
            )
        return Weights(item.key, path, digest, published=item.sha256 in (None, digest))

    def by_hand(self, name: str) -> Weights | None:
        """Weights that no hub has, which somebody put here as `<method>--<variant>` with the suffix that they have."""
        place = self.folder / name.replace("/", "--")
        path = next((path for suffix in SUFFIXES if (path := place.with_name(place.name + suffix)).is_file()), None)
        return None if path is None else Weights(name, path, digest_of(path))

    def pin(self, item: Published) -> Pin | None:
        """Which bytes are meant: what `pins.toml` says, else what the item itself says; None if nobody does.

        Raises:
            WeightsError: `pins.toml` cannot be read.
        """
        written = pins.read(self.folder).get(item.key)
        if written is not None or item.sha256 is None:
            return written
        return Pin(sha256=item.sha256, revision=item.revision if isinstance(item, Release) else None)

    def path(self, item: Published) -> Path | None:
        """The file on this machine; None if it is not here."""
        return next((place for place in self.places(item) if place.is_file()), None)

    def places(self, item: Published) -> list[Path]:
        """Where the file is looked for, the place to which it would be downloaded first."""
        if isinstance(item, Release):
            return [self.folder / item.repo.replace("/", "--") / item.file]
        # other tools have these files too, and load them by torch.hub
        return [self.folder / item.name, Path(torch.hub.get_dir()) / "checkpoints" / item.name]

    def pinned(self, item: Published) -> bool:
        """Whether enough is known to download it."""
        pin = self.pin(item)
        return pin is not None and not (isinstance(item, Release) and pin.revision is None)

    def _fetched(self, item: Published, pin: Pin | None, name: str) -> Path:
        places = self.places(item)
        here = " and ".join(map(str, places))
        to_pin = f"`tokenmark weights pin {name}`"
        known = pin is not None and self.pinned(item)
        if not self.download:
            command = f"`tokenmark weights fetch {name}`" if known else f"{to_pin}, `tokenmark weights fetch {name}`"
            raise MissingWeightsError(
                f"{name} has no weights here: {item.key} is missing, looked for at {here}; get it: {command}"
            )
        if pin is None or not known:
            raise MissingWeightsError(f"{name} is not pinned, so {item.key} is not downloaded: first run {to_pin}")
        from tokenmark import fetching  # noqa: PLC0415  the hub's library takes a second, and is rarely needed

        fetching.fetch(item, pin, places[0])
        return places[0]


def given(item: Published, path: Path, sha256: str | None = None) -> Weights:
    """A file that somebody names, in the published one's place.

    Args:
        item: what it stands for.
        path: the file itself.
        sha256: the hash that it must have, instead of the published one.

    Raises:
        WeightsError: it is not there, or its bytes are others.
    """
    if not path.is_file():
        raise MissingWeightsError(f"{path} is missing: it was to stand for {item.key}")
    wanted = (sha256 or item.sha256 or "").lower()
    digest = digest_of(path)
    if wanted not in ("", digest):
        raise WeightsError(
            f"{path} is another file or truncated: its SHA-256 is {digest[:12]}..., wanted is {wanted[:12]}..."
        )
    return Weights(item.key, path, digest, published=item.sha256 in (None, digest))
