"""What a reduction is to the driver: the tokens' state, the places where it acts, and keeping or merging tokens."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from reference_impls.layers.families.base import Backbone, BlockView, Places
from reference_impls.layers.vit_attention import Attended, Looks, attend, wide
from reference_impls.layers.vit_backbone import AttentionKind
from tokenmark.contracts import BlockTokens

__all__ = ["Matching", "Reduction", "TokenState", "merge", "merge_clusters", "remake", "select", "take", "with_prefix"]


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
    places: Places | None = None
    """What blocks look at beside the channels; None where positions were all added before the first block."""
    position: Tensor | None = None
    """`(B, N)` int64, which original token's place each token has; None while all have their own, or none looks."""
    carried: tuple[Tensor, ...] = ()
    """What a reduction carries from block to block beside the tokens (a mask, a cache), in an order of its own."""

    def looks(self, block: int, *, proportional: bool) -> Looks:
        """What the attention of `block` knows of the tokens."""
        size = self.size if proportional else None
        if self.places is None:
            return Looks(size)
        rotary = self.places.rotary_at(block, self.position)
        return Looks(size, rotary, self.places.rotate_half, self.places.bias_at(block, self.position))


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

    needs_class_token: ClassVar[bool] = False
    """Whether it asks the class token, so that a model without one is refused."""
    makes_tokens: bool = False
    """Whether it mixes new tokens, which have no place, so that a model whose blocks look at places is refused."""
    adaptive: ClassVar[bool] = False
    """Whether images keep different numbers of tokens; the schedule then promises the most."""
    proportional: bool = False
    """Whether token sizes enter attention once tokens were merged (ToMe, eq. 1)."""

    def __init__(self, backbone: Backbone, schedule: tuple[BlockTokens, ...]) -> None:
        super().__init__()
        self.schedule = schedule
        self.prefix = backbone.prefix

    @property
    def extra_macs(self) -> int:
        """MACs of one image that the method computes beside the model: its matrix products, distances and layers."""
        return 0

    def alive(self, state: TokenState) -> Tensor:
        """How many tokens each image has, `(B,)`; fewer than there are rows where some only fill up."""
        return torch.full((state.x.shape[0],), state.x.shape[1], device=state.x.device)

    def reduces_in(self, block: int) -> bool:
        """Whether fewer tokens enter the MLP of `block` than its attention."""
        return self.schedule[block].mlp < self.schedule[block].attention

    def needs_rows(self, block: int) -> bool:
        """Whether the whole attention matrix of `block` is wanted, so that it is better written out once."""
        del block
        return False

    def look_at(self, images: Tensor) -> tuple[Tensor, ...]:
        """What the method wants of the images `(B, channels, H, W)` themselves: `carried` of the first state."""
        del images
        return ()

    def before_block(self, block: int, state: TokenState) -> TokenState:
        """Act on the tokens that enter `block`."""
        del block
        return state

    def attend(
        self, block: int, view: BlockView, state: TokenState, kind: AttentionKind
    ) -> tuple[TokenState, Attended]:
        """Run the attention of `block` and add its residual; for methods that change attention itself."""
        looks = state.looks(block, proportional=self.proportional)
        out, seen = attend(view.attention, view.norm1(state.x), looks, kind)
        return replace(state, x=state.x + view.residual1(out)), seen

    def after_attention(self, block: int, state: TokenState, seen: Attended) -> TokenState:
        """Act after the attention residual of `block`, before its MLP; `seen` is what its attention saw."""
        del block, seen
        return state

    def feed_forward(self, block: int, view: BlockView, state: TokenState) -> TokenState:
        """Run the MLP of `block` and add its residual; for methods that change the MLP's share."""
        del block
        return replace(state, x=state.x + view.residual2(view.mlp(view.norm2(state.x))))

    def after_block(self, block: int, state: TokenState) -> TokenState:
        """Act on the tokens that leave `block`."""
        del block
        return state

    def head(self, backbone: Backbone, state: TokenState) -> Tensor:
        """The model's output for the tokens that leave the last block."""
        return backbone.head(state.x, state.size)


def select(state: TokenState, index: Tensor, goes_to: Tensor | None = None) -> TokenState:
    """Keep the tokens at `index` `(B, K)`, in its order, and drop the others.

    `goes_to` `(B, N)` says for tracing which kept token represents each token; without it dropped ones are gone.
    """
    source = state.source
    if source is not None:
        source = _follow(source, _order(index, state.x.shape[1]) if goes_to is None else goes_to)
    size = None if state.size is None else state.size.gather(1, index)
    return replace(state, x=take(state.x, index), size=size, source=source, position=_moved(state, index))


def merge(state: TokenState, matching: Matching) -> TokenState:
    """Merge tokens into others by the mean that weighs each token by its size (ToMe, section 3).

    A merged token has the place of the one that it was merged into.
    """
    x, size, source = state.x, state.size, state.source
    if size is None:
        size = torch.ones(x.shape[:2], dtype=wide(x), device=x.device)
    staying, going = size.gather(1, matching.kept), size.gather(1, matching.merged)
    merged_size = staying.scatter_add(1, matching.into, going)
    kept = take(x, matching.kept) * (staying / merged_size)[..., None]
    joining = take(x, matching.merged) * (going / merged_size.gather(1, matching.into))[..., None]
    mean = _add_rows(kept, matching.into, joining).to(x.dtype)
    if source is not None:
        places = _order(matching.kept, x.shape[1]).scatter(1, matching.merged, matching.into)
        source = _follow(source, places)
    return replace(state, x=mean, size=merged_size, source=source, position=_moved(state, matching.kept))


def merge_clusters(state: TokenState, goes_to: Tensor, count: int) -> TokenState:
    """Replace the tokens by `count` clusters: the mean of the members of each, weighed by size.

    `goes_to` `(B, N)` int64 is every token's cluster, 0 to `count` - 1. A cluster has the place of its first member;
    an empty one is zeros, and of size 0.
    """
    x, source, position = state.x, state.source, None
    size = torch.ones(x.shape[:2], dtype=wide(x), device=x.device) if state.size is None else state.size
    merged_size = size.new_zeros(x.shape[0], count).scatter_add(1, goes_to, size)
    share = size / merged_size.gather(1, goes_to)
    blank = x.new_zeros(x.shape[0], count, x.shape[2], dtype=wide(x))
    mean = _add_rows(blank, goes_to, x * share[..., None]).to(x.dtype)
    if state.places is not None:
        everyone = torch.arange(x.shape[1], device=x.device).expand_as(goes_to)
        first = torch.full_like(goes_to[:, :count], x.shape[1]).scatter_reduce(1, goes_to, everyone, "amin")
        position = _moved(state, first.clamp(max=x.shape[1] - 1))
    source = None if source is None else _follow(source, goes_to)
    return replace(state, x=mean, size=merged_size, source=source, position=position)


def remake(state: TokenState, x: Tensor, goes_to: Tensor | None = None) -> TokenState:
    """Replace all tokens by new ones `x` `(B, K, C)`, which have neither size nor place.

    `goes_to` `(B, N)` says for tracing which new token holds each token, -1 where none does; without it all are gone.
    """
    source = state.source
    if source is not None:
        source = torch.full_like(source, -1) if goes_to is None else _follow(source, goes_to)
    return replace(state, x=x, size=None, source=source)


def with_prefix(index: Tensor, prefix: int) -> Tensor:
    """From indices of patches `(B, K)` to indices of tokens `(B, prefix + K)`, the prefix tokens first."""
    first = torch.arange(prefix, device=index.device).expand(index.shape[0], -1)
    return torch.cat((first, index + prefix), dim=1)


def _moved(state: TokenState, index: Tensor) -> Tensor | None:
    """The places of the tokens at `index`, where blocks look at them."""
    if state.places is None:
        return None
    return index if state.position is None else state.position.gather(1, index)


def take(x: Tensor, index: Tensor) -> Tensor:
    """The tokens of `x` `(B, N, C)` at `index` `(B, K)`, `(B, K, C)`."""
    # whole rows of one matrix: an index for every channel costs several times as much
    flat = x.flatten(0, 1).index_select(0, _rows(index, x.shape[1]))
    return flat.reshape(*index.shape, x.shape[2])


def _add_rows(x: Tensor, into: Tensor, rows: Tensor) -> Tensor:
    """`x` `(B, K, C)` with each of `rows` `(B, r, C)` added at its place in `into` `(B, r)`."""
    flat = x.flatten(0, 1).index_add(0, _rows(into, x.shape[1]), rows.flatten(0, 1).to(x.dtype))
    return flat.reshape(x.shape)


def _rows(index: Tensor, tokens: int) -> Tensor:
    """From places within each image `(B, K)` to rows of all images' `tokens` tokens, one after the other."""
    return (index + tokens * torch.arange(index.shape[0], device=index.device)[:, None]).flatten()


def _order(index: Tensor, tokens: int) -> Tensor:
    """For each of `tokens` tokens its place in `index` `(B, K)`, -1 where it is not in it."""
    places = torch.full((index.shape[0], tokens), -1, dtype=torch.int64, device=index.device)
    return places.scatter(1, index, torch.arange(index.shape[1], device=index.device).expand_as(index))


def _follow(source: Tensor, places: Tensor) -> Tensor:
    return torch.where(source < 0, source, places.gather(1, source.clamp(min=0)))
