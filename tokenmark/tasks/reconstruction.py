"""Reconstruction: encode and decode the held-out images, and compare."""

import functools
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from tokenmark import build, networks, protocols, registry, splits
from tokenmark.autocast import autocast
from tokenmark.contracts import TokenizerMethod, Tokens
from tokenmark.errors import DataError
from tokenmark.measures import lpips
from tokenmark.measures.base import Measure
from tokenmark.measures.codes import Codebook, Rate
from tokenmark.measures.frechet import PairedDistance
from tokenmark.measures.inception_score import InceptionScoreMeasure
from tokenmark.measures.pixels import PixelMeasure
from tokenmark.measures.reference import Rows, shared
from tokenmark.pictures import grid
from tokenmark.protocols import Protocol
from tokenmark.quantise import quantised
from tokenmark.spec import RunSpec
from tokenmark.tasks.base import SEEN, Context, Outcome, Task, computed, finite

SHOWN = 10
"""Images in the picture."""


def noise_of(protocol: Protocol, seed: int, start: int) -> torch.Generator:
    """What a tokenizer that draws noise draws from for the batch that begins at image `start`, decoders after encoders.

    Raises:
        DataError: the protocol leaves it to whoever made the images.
    """
    if protocol.stochastic_encoder == "seeded-per-batch":
        return torch.Generator().manual_seed(seed + start)
    raise DataError(
        f"protocol {protocol.id} says no noise for a stochastic tokenizer: choose one made for reconstruction"
    )


def _reader(method: str, context: Context) -> Callable[[Tensor], Tensor] | None:
    """What turns labels into the text features that a decoder needs; None where it needs none."""
    name = registry.get_as(TokenizerMethod, method).text
    if not name:
        return None
    from tokenmark import texts  # noqa: PLC0415  open_clip takes seconds, and few tokenizers need it

    return texts.load(name, context.device, context.shelf).of_classes


class ReconstructionSession:
    """A tokenizer under measurement."""

    def __init__(self, spec: RunSpec, context: Context) -> None:
        self._spec, self._device = spec, context.device
        self._protocol = protocols.get(spec.protocol)
        self._data = splits.load(self._protocol, "reconstruction", context.data)
        self._tokenizer = build.tokenizer(spec.method, spec.variant or "", context.device, context.shelf)
        self._told = _reader(spec.method, context)
        self._network = None
        if SEEN & set(spec.measures):
            self._network = networks.load(self._protocol, context.device, shelf=context.shelf)
        batches = f"batches of {spec.batch_size}"
        seen_as = networks.seen_as(self._protocol, spec.weights, context.device)
        self._originals = shared(spec.samples, *spec.data.values(), *seen_as, batches)
        self.total = spec.samples
        height, width = self._data.images.shape[1:3]
        info = self._tokenizer.info
        if info.image_size != height:
            raise DataError(
                f"{spec.title} takes {info.image_size} px images, but {self._protocol.data} has {height} px"
            )
        self._info = info
        makers: dict[str, Callable[[], Measure]] = {
            "rfid": lambda: PairedDistance("rfid", self._originals),
            "inception-score": lambda: InceptionScoreMeasure.under(self._protocol, spec.samples, spec.seed),
            "psnr": lambda: PixelMeasure("psnr"),
            "ssim": lambda: PixelMeasure("ssim"),
            "lpips": lambda: PixelMeasure("lpips", lpips.load("alex", self._device, shelf=context.shelf)),
            "rate": lambda: Rate(height * width),
            "codebook": lambda: Codebook(info.codebook_sizes),
        }
        self.measures = {name: makers[name]() for name in spec.measures}

    def _reconstruct(self, originals: Tensor, labels: Tensor, start: int) -> tuple[Tensor, Tokens]:
        draws = self._info.stochastic or self._info.draws_to_decode
        noise = noise_of(self._protocol, self._spec.seed, start) if draws else None
        # a method of other people's may know neither word
        more: dict[str, Any] = {"generator": noise} if self._info.draws_to_decode else {}
        if self._told is not None:
            more["text"] = self._told(labels)
        with autocast(self._protocol, self._device):
            tokens = self._tokenizer.encode(originals, self._spec.tokens, noise)
            decoded = self._tokenizer.decode(tokens, **more)
        images = finite(decoded.float(), self._spec.title, "images")
        return quantised(images, self._protocol.uint8_rule), tokens

    def step(self, start: int, stop: int) -> None:
        """Encode, decode and compare these images."""
        with torch.inference_mode():
            originals, labels = self._data.batch(start, stop, self._device)
            images, tokens = self._reconstruct(originals, labels, start)
            seen = self._network(images) if self._network is not None else None
            for measure in self.measures.values():
                match measure:
                    case PairedDistance() if seen is not None:
                        self._originals.of(start, stop, functools.partial(self._features, originals))
                        measure.update(seen.features.cpu().numpy(), start)
                    case InceptionScoreMeasure() if seen is not None and seen.logits is not None:
                        measure.update(seen.logits.cpu().numpy())
                    case PixelMeasure():
                        measure.update(images, originals)
                    case Rate() | Codebook():
                        measure.update(tokens)

    def _features(self, originals: Tensor) -> Rows:
        assert self._network is not None  # noqa: S101  it is there where features are measured
        return cast("Rows", self._network(originals).features.cpu().numpy())

    def _knows(self) -> list[str]:
        """What a reader must know of a decoder that is told more than the code."""
        if self._told is None:
            return []
        return ["not comparable without saying so: the decoder is told the image's own class in words"]

    def finish(self, say: Callable[[str], None]) -> Outcome:
        """Values, the code's facts, and a picture of the first images above their reconstructions."""
        say("distances")
        with torch.inference_mode():
            originals, labels = self._data.batch(0, min(SHOWN, self.total), self._device)
            images, _ = self._reconstruct(originals, labels, 0)
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
            warnings=[*self._data.warnings, *self._knows()],
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
    measures=("rfid", "inception-score", "psnr", "ssim", "lpips", "rate", "codebook"),
    usual=("rfid", "psnr", "ssim", "rate", "codebook"),
    open=cast("Callable[[RunSpec, Context], ReconstructionSession]", ReconstructionSession),
)
