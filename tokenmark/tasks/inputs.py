"""Where a classifier's images come from: the protocol's data set, or noise where the protocol reads none."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from tokenmark import protocols, splits
from tokenmark.errors import DataError
from tokenmark.protocols.throughput import NO_DATA
from tokenmark.spec import RunSpec
from tokenmark.tasks.base import Context


class Inputs(Protocol):
    """Images by index, with their labels."""

    @property
    def warnings(self) -> list[str]:
        """What keeps numbers from these images apart from others."""
        ...

    def __len__(self) -> int:
        """How many there are."""
        ...

    def batch(self, start: int, stop: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Images float32 `(B, 3, H, W)` in [0, 1] and labels int64 `(B,)` on the device."""
        ...


@dataclass(frozen=True, slots=True)
class Noise:
    """Images of independent uniform pixels, drawn from a seed; every label is 0 and means nothing."""

    shape: tuple[int, int, int]
    """Channels, height, width."""
    seed: int

    @property
    def warnings(self) -> list[str]:
        """None: nothing that depends on pixels is measured with them."""
        return []

    def __len__(self) -> int:
        """As many as anybody asks for."""
        return 1 << 31

    def batch(self, start: int, stop: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Images and labels; the same for the same indices."""
        generator = torch.Generator().manual_seed(self.seed * (1 << 31) + start)
        images = torch.rand(stop - start, *self.shape, generator=generator)
        return images.to(device), torch.zeros(stop - start, dtype=torch.int64, device=device)


def inputs_of(spec: RunSpec, shape: tuple[int, int, int], context: Context) -> Inputs:
    """The images of a run; noise has the `shape` that its model takes.

    Raises:
        DataError: the data set is missing, altered, cropped by another rule than the protocol's, or of another size
            than the model takes.
    """
    protocol = protocols.get(spec.protocol)
    if protocol.data == NO_DATA:
        return Noise(shape, spec.seed)
    data = splits.load(protocol, "classification", context.data)
    if data.images.shape[1:3] != shape[1:]:
        height, width = data.images.shape[1:3]
        raise DataError(
            f"{spec.model or spec.variant} takes images of {shape[1]} x {shape[2]} px, but {protocol.data} has"
            f" {height} x {width}: choose another protocol or model"
        )
    return data


def filled(inputs: Inputs, batch: int, device: torch.device) -> Tensor:
    """So many images `(batch, 3, H, W)` on the device, repeated where there are fewer."""
    images = inputs.batch(0, min(batch, len(inputs)), device)[0]
    return images.repeat(-(-batch // len(images)), 1, 1, 1)[:batch].contiguous()
