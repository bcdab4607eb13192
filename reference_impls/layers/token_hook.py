"""What a reducer is to the blocks of a diffusion network, and what it is told (`sampler_hook` attaches it)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

__all__ = ["Call", "Merging", "Part", "Place", "Seen", "TokenHook"]

Part = Literal["attention", "cross_attention", "mlp"]
"""What runs on reduced tokens: self-attention, attention to the text, or the MLP of a block."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call of the network, before it runs; the halves of a guided batch are one call."""

    step: int
    """From 0."""
    steps: int
    """Of the whole run."""
    seeds: tuple[int, ...]
    """One of each image, the same in all calls."""
    halves: int
    """2 where every image stands twice in the batch, guided and unguided; else 1."""
    channels: int
    """Of the latents; a network may predict more."""
    patch: int
    """Latents per side of the network's finest token."""
    grid: tuple[int, int]
    """Rows and columns of its finest tokens."""
    device: torch.device
    before: Tensor | None = None
    """What the call before gave, `(halves * images, C, H, W)`; None in the first."""

    @property
    def difference(self) -> Tensor | None:
        """Of the noise that the call before predicted, one half less the other, `(images, channels, H, W)`."""
        if self.before is None or self.halves == 1:
            return None
        first, second = self.before[:, : self.channels].chunk(2)
        return first - second


@dataclass(frozen=True, slots=True)
class Place:
    """A block of the network."""

    block: int
    """From 0, in the order of the network."""
    blocks: int
    grid: tuple[int, int]
    """Rows and columns of its tokens."""
    smaller: int
    """How many times smaller its map is than the network's finest."""
    width: int
    """Channels of its tokens."""

    @property
    def tokens(self) -> int:
        """How many there are."""
        return self.grid[0] * self.grid[1]


@dataclass(frozen=True, slots=True)
class Merging:
    """What becomes of one block's tokens in one call."""

    merge: Callable[[Tensor], Tensor]
    """`(B, N, C)` to the `(B, M, C)` that are computed."""
    unmerge: Callable[[Tensor], Tensor]
    """`(B, M, C)`, what was computed, to `(B, N, C)`, what is added to all tokens."""
    recall: Callable[[str, Tensor], Tensor] | None = None
    """From the `key` or `value` of those that are computed, `(B, M, C)`, to that of all that self-attention sees."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Token counts of one block in one call."""

    computed: int
    """Tokens that are computed in the parts that the hook acts on."""
    keys: int
    """Tokens that self-attention sees."""
    macs: int = 0
    """Multiply-accumulates per image, of one half, that the hook computes beside the block."""


class TokenHook(Protocol):
    """What a reducer is to the blocks of a network."""

    parts: frozenset[Part]
    """What runs on reduced tokens."""

    def begin(self, call: Call) -> None:
        """Be told of a call of the network; at step 0 a new run begins."""
        ...

    def merge(self, x: Tensor, place: Place) -> Merging | None:
        """What to do with the tokens `x` `(B, N, C)` that enter a block; None leaves the block as it is."""
        ...

    def finish(self, output: Tensor) -> Tensor:
        """What the network shall give, by what it computed, `(B, C, H, W)`."""
        ...

    def seen(self, place: Place, step: int, steps: int) -> Seen:
        """The token counts of a block at a step, known before anything runs."""
        ...
