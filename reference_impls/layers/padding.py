"""Images that keep different numbers of tokens in one batch: rows that only fill up, and layers that leave them out."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from reference_impls.layers.families.base import AttentionView, Backbone
from reference_impls.layers.reduction import TokenState
from reference_impls.layers.vit_attention import wide
from tokenmark.contracts import UnsupportedBackboneError

__all__ = ["Packed", "PackedAttention", "head_of_live", "longest", "places_after", "refuse_attention_pooling"]


def refuse_attention_pooling(backbone: Backbone, method: str) -> None:
    """Refuse a model whose head looks at all rows and cannot be told which only fill up.

    Raises:
        UnsupportedBackboneError: it pools by attention.
    """
    if any(getattr(part, "attn_pool", None) is not None for part in backbone.model.modules()):
        raise UnsupportedBackboneError(
            f"{method} fills images up with rows that nobody may see: this model's attention pooling would see them"
        )


def head_of_live(backbone: Backbone, state: TokenState, size: Tensor) -> Tensor:
    """The model's output of live tokens alone: `size` `(B, N)` is 0 for rows that fill up, never for a first patch.

    A maximum over patches does not mind one that stands there twice; a mean weighs the rows that fill up by 0.
    """
    x = torch.where((size > 0)[..., None], state.x, state.x[:, backbone.prefix : backbone.prefix + 1])
    return backbone.head(x, size.to(wide(x)))


def longest(alive: Tensor, least: int) -> int:
    """How many rows the image with the most tokens needs, but `least`; the live ones of `alive` `(B, N)` come first.

    Asks the device, and so waits for it.
    """
    return max(least, int(alive.any(dim=0).sum()))


def places_after(index: Tensor, alive: Tensor, tokens: int) -> Tensor:
    """For each of `tokens` tokens its place among those kept at `index` `(B, K)`, -1 where it is gone: `(B, tokens)`.

    Rows of `index` that are not `alive` `(B, K)` only fill up.
    """
    gone = torch.full((index.shape[0], tokens + 1), -1, dtype=torch.int64, device=index.device)
    order = torch.arange(index.shape[1], device=index.device).expand_as(index)
    return gone.scatter(1, torch.where(alive, index, tokens), order)[:, :tokens]


@dataclass(frozen=True)
class Packed:
    """The live rows of a batch, one behind the other, for layers that look at one token at a time."""

    rows: Tensor
    """`(M,)` int64, the live rows of `(B N, C)`."""
    batch: int
    tokens: int
    """Rows of each image, N."""

    @classmethod
    def of(cls, alive: Tensor) -> "Packed":
        """The rows that are `alive` `(B, N)`; waits for the device."""
        return cls(alive.flatten().nonzero()[:, 0], *alive.shape)

    def take(self, x: Tensor) -> Tensor:
        """From `(B, N, C)` to `(1, M, C)`."""
        return x.flatten(0, 1).index_select(0, self.rows)[None]

    def put(self, x: Tensor) -> Tensor:
        """From `(1, M, C)` to `(B, N, C)`, with zeros in the rows that fill up."""
        blank = x.new_zeros(self.batch * self.tokens, x.shape[2])
        return blank.index_copy(0, self.rows, x[0]).reshape(self.batch, self.tokens, x.shape[2])


class PackedAttention(AttentionView):
    """An attention whose linear layers run on the live rows only."""

    def __init__(self, whole: AttentionView, packed: Packed) -> None:
        self.whole, self.packed, self.scale = whole, packed, whole.scale

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, zeros in the rows that fill up."""
        q, k, v = (self._put_heads(each) for each in self.whole.split(self.packed.take(x)))
        return q, k, v

    def join(self, mixed: Tensor, x: Tensor) -> Tensor:
        """The output, zeros in the rows that fill up."""
        heads = self.packed.take(mixed.transpose(1, 2).flatten(2)).unflatten(2, (mixed.shape[1], -1))
        return self.packed.put(self.whole.join(heads.transpose(1, 2), self.packed.take(x)))

    @property
    def dropout(self) -> float:
        """Its own."""
        return self.whole.dropout

    def _put_heads(self, x: Tensor) -> Tensor:
        """From `(1, heads, M, D)` to `(B, heads, N, D)`."""
        whole = self.packed.put(x.transpose(1, 2).flatten(2))
        return cast("Tensor", whole.unflatten(2, (x.shape[1], -1))).transpose(1, 2)
