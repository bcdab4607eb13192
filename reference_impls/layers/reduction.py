"""What a reduction is to the driver: the tokens' state, the places where it acts, and keeping or merging tokens."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from reference_impls.layers.vit_attention import Attended, wide
from tokenmark.contracts import BlockTokens


@dataclass(frozen=True)
class TokenState:
    """The tokens on their way through the blocks."""

    x: Tensor
    """`(B, N, C)`; prefix tokens (class, distillation, registers) always come first."""
    size: Tensor | None = None
    """`(B, N)`, how many original tokens each stands for; None while nothing was merged. Never below float32."""
    score: Tensor | None = None
    """`(B, N)`, a score that a reduction hands to the next block."""
    source: Tensor | None = None
    """`(B, original tokens)` int64, the token that holds each original one, -1: dropped. None: not asked for."""


@dataclass(frozen=True)
class Matching:
    """Which tokens stay and which are merged into them; indices are int64."""

    kept: Tensor
    """`(B, N - r)`, positions of the tokens that stay, in the order of the output."""
    merged: Tensor
    """`(B, r)`, positions of the tokens that are merged."""
    into: Tensor
    """`(B, r)`, the place in the output that each merged token goes to."""


class Reduction(nn.Module):
    """Acts on the tokens at the places that a method overrides; this one leaves them as they are.

    `schedule` promises the token counts of every block, and a method keeps what it promises.
    """

    proportional = False
    """Whether token sizes enter attention once tokens were merged."""

    def __init__(self, schedule: tuple[BlockTokens, ...]) -> None:
        super().__init__()
        self.schedule = schedule

    def needs_rows(self, block: int) -> bool:
        """Whether the whole attention matrix of `block` is wanted, so that it is better written out once."""
        del block
        return False

    def before_block(self, block: int, state: TokenState) -> TokenState:
        """Act on the tokens that enter `block`."""
        del block
        return state

    def after_attention(self, block: int, state: TokenState, seen: Attended) -> TokenState:
        """Act after the attention residual of `block`, before its MLP; `seen` is what its attention saw."""
        del block, seen
        return state

    def before_head(self, state: TokenState) -> TokenState:
        """Act on the tokens that leave the last block."""
        return state


def select(state: TokenState, index: Tensor, goes_to: Tensor | None = None) -> TokenState:
    """Keep the tokens at `index` `(B, K)`, in its order, and drop the others.

    `goes_to` `(B, N)` says for tracing which kept token represents each token; without it dropped ones are gone.
    """
    source = state.source
    if source is not None:
        source = _follow(source, _places(index, state.x.shape[1]) if goes_to is None else goes_to)
    return replace(
        state, x=_take(state.x, index), size=None if state.size is None else state.size.gather(1, index), source=source
    )


def merge(state: TokenState, matching: Matching) -> TokenState:
    """Merge tokens into others by the mean that weighs each token by its size (ToMe, section 3)."""
    x, size, source = state.x, state.size, state.source
    if size is None:
        size = torch.ones(x.shape[:2], dtype=wide(x), device=x.device)
    weighted = x * size[..., None]
    into = matching.into[..., None].expand(-1, -1, x.shape[2])
    merged = _take(weighted, matching.kept).scatter_add(1, into, _take(weighted, matching.merged))
    merged_size = size.gather(1, matching.kept).scatter_add(1, matching.into, size.gather(1, matching.merged))
    if source is not None:
        places = _places(matching.kept, x.shape[1]).scatter(1, matching.merged, matching.into)
        source = _follow(source, places)
    return replace(state, x=(merged / merged_size[..., None]).to(x.dtype), size=merged_size, source=source)


def with_prefix(index: Tensor, prefix: int) -> Tensor:
    """From indices of patches `(B, K)` to indices of tokens `(B, prefix + K)`, the prefix tokens first."""
    first = torch.arange(prefix, device=index.device).expand(index.shape[0], -1)
    return torch.cat((first, index + prefix), dim=1)


def _take(x: Tensor, index: Tensor) -> Tensor:
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[2]))


def _places(index: Tensor, tokens: int) -> Tensor:
    """For each of `tokens` tokens its place in `index` `(B, K)`, -1 where it is not in it."""
    places = torch.full((index.shape[0], tokens), -1, dtype=torch.int64, device=index.device)
    return places.scatter(1, index, torch.arange(index.shape[1], device=index.device).expand_as(index))


def _follow(source: Tensor, places: Tensor) -> Tensor:
    return torch.where(source < 0, source, places.gather(1, source.clamp(min=0)))
