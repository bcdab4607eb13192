"""Reconstruction: encode and decode the held-out images, and compare."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from tokenmark import build, protocols
from tokenmark.contracts import Tokens
from tokenmark.data import catalog
from tokenmark.errors import DataError
from tokenmark.measures import features
from tokenmark.measures.base import Measure
from tokenmark.measures.codes import Codebook, Rate
from tokenmark.measures.frechet import FrechetDistance
from tokenmark.measures.pixels import PixelMeasure
from tokenmark.pictures import grid
from tokenmark.quantise import quantised
from tokenmark.spec import RunSpec
from tokenmark.tasks.base import Context, Outcome, Task, computed, finite

SHOWN = 10
"""Images in the picture."""


class ReconstructionSession:
    """A tokenizer under measurement."""

    def __init__(self, spec: RunSpec, context: Context) -> None:
        self._spec, self._device = spec, context.device
        self._protocol = protocols.get(spec.protocol)
        self._data = catalog.load(*self._protocol.split("reconstruction"), context.data)
        self._tokenizer = build.tokenizer(spec.method, spec.variant or "", context.device, context.shelf)
        self._network = features.load(self._protocol.port, context.device)
        self.total = spec.samples
        height, width = self._data.images.shape[1:3]
        info = self._tokenizer.info
        if info.image_size != height:
            raise DataError(
                f"{spec.title} takes {info.image_size} px images, but {self._protocol.data} has {height} px"
            )
        self._info = info
        makers: dict[str, Callable[[], Measure]] = {
            "rfid": self._distance,
            "psnr": lambda: PixelMeasure("psnr"),
            "ssim": lambda: PixelMeasure("ssim"),
            "rate": lambda: Rate(height * width),
            "codebook": lambda: Codebook(info.codebook_sizes),
        }
        self.measures = {name: makers[name]() for name in spec.measures}

    def _distance(self) -> Measure:
        reference = features.of_data(self._network, self._data, self._spec.samples, self._device)
        return FrechetDistance("rfid", reference.astype("float64"), paired=True)

    def _reconstruct(self, start: int, stop: int) -> tuple[Tensor, Tensor, Tokens]:
        originals, _ = self._data.batch(start, stop, self._device)
        noise = torch.Generator().manual_seed(self._spec.seed + start) if self._info.stochastic else None
        tokens = self._tokenizer.encode(originals, self._spec.tokens, noise)
        decoded = finite(self._tokenizer.decode(tokens), self._spec.title, "images")
        return originals, quantised(decoded, self._protocol.uint8_rule), tokens

    def step(self, start: int, stop: int) -> None:
        """Encode, decode and compare these images."""
        with torch.inference_mode():
            originals, images, tokens = self._reconstruct(start, stop)
            seen = self._network.features(images).cpu().numpy() if "rfid" in self.measures else None
            for measure in self.measures.values():
                match measure:
                    case FrechetDistance() if seen is not None:
                        measure.update(seen)
                    case PixelMeasure():
                        measure.update(images, originals)
                    case Rate() | Codebook():
                        measure.update(tokens)

    def finish(self, say: Callable[[str], None]) -> Outcome:
        """Values, the code's facts, and a picture of the first images above their reconstructions."""
        say("distances")
        with torch.inference_mode():
            originals, images, _ = self._reconstruct(0, min(SHOWN, self.total))
        info = self._info
        return Outcome(
            values=computed(self.measures.values()),
            details={
                "max_tokens": info.max_tokens,
                "codebook_sizes": list(info.codebook_sizes),
                "bits_per_token": info.bits_per_token,
                "variable_length": info.variable_length,
                "parameters": info.parameters,
            },
            warnings=self._data.warnings,
            pictures={
                "reconstructions": (
                    grid(torch.cat([originals, images]).cpu(), len(originals)),
                    f"{self._spec.title}: originals above, reconstructions below",
                )
            },
        )


RECONSTRUCTION = Task(
    name="reconstruction",
    title="Reconstruction",
    measures=("rfid", "psnr", "ssim", "rate", "codebook"),
    open=cast("Callable[[RunSpec, Context], ReconstructionSession]", ReconstructionSession),
)
