"""A generator ready to be sampled: by index, so that any sample can be made again alone; and what a sample costs."""

from collections.abc import Mapping
from typing import cast

import torch
from pydantic import JsonValue
from torch import Tensor, nn

from tokenmark import build, protocols, registry
from tokenmark.autocast import autocast
from tokenmark.contracts import GeneratorMethod, Preset, Prompts
from tokenmark.measures.called import called_macs
from tokenmark.quantise import quantised
from tokenmark.shelf import Shelf
from tokenmark.spec import RunSpec
from tokenmark.tasks.asked import labels_of, noise_of, order_of, reader_of
from tokenmark.tasks.base import finite

NO_SETTINGS: Mapping[str, JsonValue] = {}

__all__ = ["Sampler", "drawn_prompts", "macs_of"]


class Sampler:
    """A run's generator under its protocol."""

    def __init__(self, spec: RunSpec, device: torch.device, shelf: Shelf | None = None) -> None:
        self._spec, self._device = spec, device
        self._protocol = protocols.get(spec.protocol)
        self.classes = self._protocol.classes or 0
        self.generator, self.preset = build.generator(
            spec.method, spec.variant or "", str(spec.settings["preset"]), device, shelf
        )
        self.reduced = build.in_sampler(self.generator, spec.settings)
        self.order = order_of(self._protocol, self.preset.classes)
        self._prompts = reader_of(registry.get_as(GeneratorMethod, spec.method), device, shelf)

    def labels(self, start: int, stop: int) -> Tensor:
        """The classes of samples `start` to `stop`, int64 `(stop - start,)`, on the device."""
        spec = self._spec
        return labels_of(self.order, self.classes, spec.seed, start, stop, spec.samples).to(self._device)

    def images(self, start: int, stop: int, *, control: bool = False) -> Tensor:
        """Samples `start` to `stop` `(B, 3, S, S)` in [0, 1] as the protocol rounds them.

        `control` asks for those of the unreduced generator, from the same noise.

        Raises:
            MethodError: some of them are no numbers.
        """
        labels = self.labels(start, stop)
        noise = [noise_of(self._spec.seed, index, self._device) for index in range(start, stop)]
        prompts = None if self._prompts is None else self._prompts(labels)
        with torch.inference_mode(), autocast(self._protocol, self._device):
            made_by = self.generator if control or self.reduced is None else self.reduced
            images = made_by.sample(labels, noise, self.preset.settings, prompts)
        return quantised(finite(images.float(), self._spec.title, "images"), self._protocol.uint8_rule)


def macs_of(method: str, variant: str, preset: Preset, settings: Mapping[str, JsonValue] = NO_SETTINGS) -> int:
    """Multiply-accumulates of one sample, guidance and decoder included, counted on tensors without content.

    `settings` are a specification's, which may name what reduces tokens.

    Raises:
        MethodError, NotImplementedError: what is computed depends on what was drawn, and no shape tells it.
    """
    meta = torch.device("meta")
    generator = build.drawn_generator(method, variant, meta)
    generator = build.in_sampler(generator, settings) or generator
    prompts = drawn_prompts(registry.get_as(GeneratorMethod, method).text, 1, meta)
    label, noise = torch.zeros(1, dtype=torch.int64), [torch.Generator().manual_seed(0)]

    def sample() -> Tensor:
        return generator.sample(label, noise, preset.settings, prompts)

    return called_macs(sample, cast("nn.Module", generator))


def drawn_prompts(text: str, n: int, device: torch.device) -> Prompts | None:
    """Features of no text at all, of the shapes that a network's have; None where nothing is told."""
    if not text:
        return None
    from tokenmark import texts  # noqa: PLC0415  open_clip takes seconds, and few generators need it

    return texts.drawn_prompts(text, n, device)
