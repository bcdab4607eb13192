"""What token reduction costs, and what a classifier with reduced tokens does."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor


@dataclass(frozen=True, slots=True)
class BlockTokens:
    """How many tokens (prefix tokens included) enter the attention and the MLP of one block."""

    attention: int
    mlp: int


@dataclass(frozen=True, slots=True)
class BlockCost:
    """Multiply-accumulates of one transformer block: norms, softmax and biases are not counted."""

    linear: int
    """Of attention's linear layers, for every token that enters attention."""
    pairs: int
    """Of both products of attention, for every pair of tokens that enter it."""
    mlp: int
    """Of the MLP, for every token that enters it."""


@dataclass(frozen=True, slots=True)
class VitCost:
    """Multiply-accumulates (MACs) of one image in a vision transformer, as a function of its token counts.

    What papers print as "GFLOPs": for a plain ViT P (3 p^2) D + sum over blocks of (4 N D^2 + 2 N^2 D + 8 N' D^2) + D
    classes, for P patches of p x p pixels, width D, and N tokens at attention, N' at the MLP.
    """

    embed: int
    blocks: tuple[BlockCost, ...]
    head: int
    head_per_token: int = 0
    """For every token that the last block hands to the head (attention pooling)."""

    def macs(self, schedule: Sequence[BlockTokens]) -> int:
        """MACs of one image whose tokens follow `schedule`, which has as many blocks."""
        total = self.embed + self.head + self.head_per_token * schedule[-1].mlp
        for block, tokens in zip(self.blocks, schedule, strict=True):
            total += block.linear * tokens.attention + block.pairs * tokens.attention**2 + block.mlp * tokens.mlp
        return total


@runtime_checkable
class ReducedModel(Protocol):
    """A classifier whose tokens are reduced: the same call as the model that it was made from."""

    @property
    def schedule(self) -> tuple[BlockTokens, ...]:
        """Token counts of every block, known before anything runs; the most there can be where images differ."""
        ...

    @property
    def cost(self) -> VitCost:
        """What the model costs, as a function of token counts."""
        ...

    @property
    def extra_macs(self) -> int:
        """MACs of one image that the method computes beside the model: predictors, similarities, mixing."""
        ...

    @property
    def adaptive(self) -> bool:
        """Whether images keep different numbers of tokens."""
        ...

    def counts(self, images: Tensor) -> Tensor:
        """How many tokens of each image enter every attention and every MLP, `(B, blocks, 2)` int64."""
        ...

    def __call__(self, images: Tensor) -> Tensor:
        """Logits `(B, classes)`."""
        ...
