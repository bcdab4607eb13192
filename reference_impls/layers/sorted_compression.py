"""Pruning and merging of tokens that are sorted by class attention (Chen et al., "DiffRate", ICCV 2023, section 3)."""

from dataclasses import replace

import torch
from torch import Tensor

from reference_impls.layers.diffrate_schedules import Kept
from reference_impls.layers.matching import cosines
from reference_impls.layers.reduction import Matching, Reduction, TokenState, merge, select, with_prefix
from reference_impls.layers.vit_attention import Attended, wide
from reference_impls.layers.vit_backbone import Backbone
from tokenmark.contracts import BlockTokens, BudgetError

__all__ = ["SortedCompression", "by_class_attention", "merge_last"]


class SortedCompression(Reduction):
    """Sorts the tokens of every block by class attention, cuts the last off, and merges the next into the others."""

    needs_class_token = True
    proportional = True

    def __init__(self, backbone: Backbone, prune_kept: Kept, merge_kept: Kept) -> None:
        for name, kept in (("prune_kept", prune_kept), ("merge_kept", merge_kept)):
            if len(kept) != backbone.depth or min(kept) <= backbone.prefix:
                raise BudgetError(
                    f"{name} {kept} must be {backbone.depth} numbers of tokens, one for each block, above the"
                    f" {backbone.prefix} prefix tokens"
                )
        schedule, pruned, tokens = [], [], backbone.tokens
        for prune, merged in zip(prune_kept, merge_kept, strict=True):
            pruned.append(min(tokens, prune))
            schedule.append(BlockTokens(attention=tokens, mlp=min(pruned[-1], merged)))
            tokens = schedule[-1].mlp
        super().__init__(backbone, tuple(schedule))
        self.pruned = tuple(pruned)
        self.width = backbone.width

    @property
    def extra_macs(self) -> int:
        """The similarities of tokens that merge with those that may receive them."""
        pairs = [(pruned - block.mlp, block.mlp) for pruned, block in zip(self.pruned, self.schedule, strict=True)]
        return sum(merged * (kept - self.prefix) * self.width for merged, kept in pairs)

    def after_attention(self, block: int, state: TokenState, seen: Attended) -> TokenState:
        """Sort, prune and merge; a block that removes nothing sorts all the same."""
        order = by_class_attention(seen, self.prefix)
        state = select(state, with_prefix(order[:, : self.pruned[block] - self.prefix], self.prefix))
        kept = self.schedule[block].mlp
        return merge_last(state, kept, self.prefix) if kept < self.pruned[block] else state


def by_class_attention(seen: Attended, prefix: int) -> Tensor:
    """Indices of the patches `(B, N - prefix)` by falling attention of the class token, averaged over heads."""
    score = seen.class_row().mean(dim=1)[:, prefix:]
    return score.detach().argsort(dim=1, descending=True, stable=True)


def merge_last(state: TokenState, kept: int, prefix: int, *, discount: bool = True) -> TokenState:
    """Merge all tokens but the first `kept` into the most similar of these, prefix tokens left out.

    Similarity is the cosine of the tokens themselves. A merged token is the plain mean of its group, whatever sizes
    they have; its size is its own and, with `discount`, that of each other times their cosine, as the release has it,
    so that sizes are no integers, and their sum shrinks.
    """
    x = state.x
    size = torch.ones(x.shape[:2], dtype=wide(x), device=x.device) if state.size is None else state.size
    best, into = cosines(x[:, kept:], x[:, prefix:kept]).max(dim=2)
    into = into + prefix
    everyone = torch.arange(x.shape[1], device=x.device).expand(x.shape[:2])
    merged = merge(replace(state, size=None), Matching(everyone[:, :kept], everyone[:, kept:], into))
    added = size[:, kept:] * best if discount else size[:, kept:]
    total = size[:, :kept].scatter_add(1, into, added.to(size.dtype))
    # Opposite directions give negative cosines; the release has no guard, and a size below zero has no logarithm.
    return replace(merged, size=total.clamp(min=torch.finfo(total.dtype).tiny))
