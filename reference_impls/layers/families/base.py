"""What the reducers' driver needs of a vision transformer: its blocks in pieces, its ends, and what they cost."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tokenmark.contracts import BlockCost, BlockTokens, VitCost

__all__ = ["AttentionView", "Backbone", "BlockView", "Places", "linear_macs", "size_weighted_mean"]


@dataclass(frozen=True)
class Places:
    """Where tokens are, as far as blocks look: rotary embeddings or relative positions of the untouched tokens.

    N0 tokens enter the first block, prefix tokens included (which no rotation turns).
    """

    rotary: tuple[Tensor, ...] = ()
    """Per block `(heads or 1, N0, 2 D)`, sines then cosines; empty where nothing is rotated."""
    rotate_half: bool = False
    """Whether channel i is paired with i + D/2, not with its neighbour."""
    bias: tuple[Tensor, ...] = ()
    """Per block `(heads, N0, N0)`, added to the logits; empty where there is none."""

    def rotary_at(self, block: int, position: Tensor | None) -> Tensor | None:
        """The embeddings of tokens at `position` `(B, N)` (None: all), `(B or 1, heads or 1, N, 2 D)`."""
        if not self.rotary:
            return None
        table = self.rotary[block]
        return table[None] if position is None else table[:, position].transpose(0, 1)

    def bias_at(self, block: int, position: Tensor | None) -> Tensor | None:
        """The bias between tokens at `position` `(B, N)` (None: all), `(B or 1, heads, N, N)`."""
        if not self.bias:
            return None
        table = self.bias[block]
        return table[None] if position is None else table[:, position[:, :, None], position[:, None, :]].transpose(0, 1)


class AttentionView(ABC):
    """One self-attention in pieces; holds the model's own modules."""

    scale: float

    @abstractmethod
    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of `x` `(B, N, C)`, each `(B, heads, N, D)`, after qk-norm, not yet rotated."""

    @abstractmethod
    def join(self, mixed: Tensor, x: Tensor) -> Tensor:
        """From the heads' outputs `(B, heads, N, D)` to `(B, N, C)`; `x` is what entered (some gate by it)."""

    @property
    @abstractmethod
    def dropout(self) -> float:
        """Probability with which an attention weight is dropped; 0 in evaluation."""


class BlockView(ABC):
    """One pre-norm transformer block in pieces; holds the model's own modules."""

    attention: AttentionView
    cost: BlockCost
    head_width: int
    """Channels of one head's queries, keys and values."""

    @abstractmethod
    def norm1(self, x: Tensor) -> Tensor:
        """The norm before attention."""

    @abstractmethod
    def residual1(self, out: Tensor) -> Tensor:
        """What is added to the tokens for an attention's output: layer scale, drop-path."""

    @abstractmethod
    def norm2(self, x: Tensor) -> Tensor:
        """The norm before the MLP."""

    @abstractmethod
    def mlp(self, x: Tensor) -> Tensor:
        """The MLP alone."""

    @abstractmethod
    def residual2(self, out: Tensor) -> Tensor:
        """What is added to the tokens for an MLP's output."""


class Backbone(ABC):
    """A vision transformer that the driver serves, and the counts that a schedule needs."""

    model: nn.Module
    blocks: tuple[BlockView, ...]
    prefix: int
    """Tokens before the patches: class, distillation and register tokens."""
    grid: tuple[int, int]
    """Rows and columns of patches."""
    image_shape: tuple[int, int, int]
    """Channels, height and width in pixels."""
    width: int
    has_class_token: bool
    """Whether token 0 is a class token."""
    placed: bool = False
    """Whether blocks look at places (rotary or relative positions), which new tokens have not."""

    @abstractmethod
    def embed(self, images: Tensor) -> tuple[Tensor, Places | None]:
        """The tokens `(B, N0, C)` that enter the first block, and their places if blocks look at them."""

    @abstractmethod
    def head(self, x: Tensor, size: Tensor | None) -> Tensor:
        """Logits or features of the last block's tokens `(B, N, C)`; a mean over tokens weighs them by `size`."""

    @property
    @abstractmethod
    def ends_cost(self) -> tuple[int, int, int]:
        """MACs of one image outside of the blocks: the embedding, the head, and the head's for every token."""

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.blocks)

    @property
    def patches(self) -> int:
        """Patch tokens that enter the first block."""
        return self.grid[0] * self.grid[1]

    @property
    def tokens(self) -> int:
        """Tokens that enter the first block."""
        return self.prefix + self.patches

    @property
    def cost(self) -> VitCost:
        """What the model costs, as a function of token counts."""
        embed, head, per_token = self.ends_cost
        return VitCost(embed, tuple(block.cost for block in self.blocks), head, per_token)

    @property
    def outputs(self) -> int:
        """How many logits or features the head gives; for methods with classifiers of their own."""
        sample = next(self.model.parameters())
        with torch.no_grad():
            tokens = torch.zeros(1, self.tokens, self.width, device=sample.device, dtype=sample.dtype)
            return self.head(tokens, None).shape[1]

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.model.parameters()).device

    def unreduced(self) -> tuple[BlockTokens, ...]:
        """The schedule of the untouched model."""
        return (BlockTokens(self.tokens, self.tokens),) * self.depth


def linear_macs(module: nn.Module | None) -> int:
    """MACs of all linear layers of a module for one token."""
    if module is None:
        return 0
    return sum(part.in_features * part.out_features for part in module.modules() if isinstance(part, nn.Linear))


def size_weighted_mean(x: Tensor, size: Tensor, start: int) -> Tensor:
    """Mean of the tokens `x` `(B, N, C)` from `start` on, each weighing as many as it stands for (`size`, `(B, N)`)."""
    weights = size[:, start:, None]
    return ((x[:, start:] * weights).sum(dim=1) / weights.sum(dim=1)).to(x.dtype)
