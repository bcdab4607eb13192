"""What samples are asked for: their classes, their noise, and what generators are told in words."""

from collections.abc import Callable
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor

from tokenmark.contracts import GeneratorMethod, Prompts
from tokenmark.errors import DataError
from tokenmark.protocols import Protocol
from tokenmark.shelf import Shelf

__all__ = ["Order", "labels_of", "noise_of", "order_of", "reader_of"]

Order = Literal["cycled", "sorted", "random"]
CPU = torch.device("cpu")
SEED_STEP = 2654435761
"""A prime near 2^32 divided by the golden ratio (Knuth): its multiples lie far apart modulo 2^32."""


def noise_of(seed: int, index: int, device: torch.device = CPU) -> torch.Generator:
    """The noise of one sample: any sample can be made again alone on this kind of device, whatever its batch.

    It is drawn where it is used: a sampler of codes asks for millions of numbers per image, which a processor would
    draw more slowly than a GPU makes the image.

    torch seeds a processor's generator with the low 32 bits alone: they hold the index, moved on by a large odd step
    per seed. So no two samples of a run share their noise, nor do runs of fewer than 10^8 samples with nearby seeds.
    """
    return torch.Generator(device).manual_seed((index + seed * SEED_STEP) % 2**32)


def order_of(protocol: Protocol, preset: str) -> Order:
    """In which order classes are asked for: the preset's, or where it leaves that open the protocol's.

    Raises:
        DataError: neither says.
    """
    if preset in {"cycled", "sorted", "random"}:
        return cast("Order", preset)
    order: dict[str, Order] = {"balanced": "cycled", "random": "random"}
    if protocol.class_sampling not in order:
        raise DataError(f"protocol {protocol.id} says no classes to sample: choose one made for generation")
    return order[protocol.class_sampling]


def labels_of(order: Order, classes: int, seed: int, start: int, stop: int, samples: int) -> Tensor:
    """The classes that samples `start` to `stop` of `samples` are asked for, int64 `(stop - start,)`."""
    if order == "random":
        draws = np.random.Generator(np.random.Philox(seed)).integers(classes, size=stop)
        return torch.from_numpy(draws[start:])
    index = torch.arange(start, stop)
    return index % classes if order == "cycled" else index * classes // samples


def reader_of(
    method: GeneratorMethod, device: torch.device, shelf: Shelf | None = None
) -> Callable[[Tensor], Prompts] | None:
    """What turns labels into the texts that a generator is told, as features; None where it is told none."""
    if not method.text:
        return None
    from tokenmark import texts  # noqa: PLC0415  open_clip takes seconds, and few generators need it

    return texts.load(method.text, device, shelf).prompts_of_classes
