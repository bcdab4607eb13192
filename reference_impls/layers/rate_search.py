"""DiffRate's search for compression rates by gradients (Chen et al., ICCV 2023, section 3).

The model's weights stay as they are; a probability over the numbers of tokens to keep is learned for the pruning and
for the merging of every block, from the model's own loss and a loss on its cost. What follows the paper: the candidate
numbers and their expectation as the number kept, masks in attention in place of removal, the straight-through gradient,
and the squared distance from the budget. What is read into it here: the forward mask keeps the expectation, rounded, so
that a search sees what its schedule will do; its gradient is that of the probability that a token of this rank is kept;
and merging moves features without a gradient to the rates, which get theirs through attention (and the mean pool).
"""

from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, pad

from reference_impls.layers.diffrate_schedules import Kept
from reference_impls.layers.families.base import BlockView
from reference_impls.layers.matching import cosines
from reference_impls.layers.reduction import TokenState, select, with_prefix
from reference_impls.layers.sorted_compression import SortedCompression, by_class_attention
from reference_impls.layers.vit_attention import Attended, attention_logits, project, wide
from reference_impls.layers.vit_backbone import AttentionKind, Backbone

__all__ = ["RateCandidates", "RateSearch", "masked_merge", "masked_softmax"]


class RateCandidates(nn.Module):
    """Numbers of patches that one act of a block may keep, and a learned probability for each."""

    kept_token_candidate: Tensor

    def __init__(self, candidates: range | tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("kept_token_candidate", torch.tensor(tuple(candidates), dtype=torch.float32))
        self.selected_probability = nn.Parameter(torch.zeros(len(candidates)))

    @property
    def kept(self) -> Tensor:
        """The expected number of patches to keep, a scalar that is differentiable."""
        return (self.selected_probability.softmax(dim=0) * self.kept_token_candidate).sum()

    def mask(self, patches: int) -> Tensor:
        """Which of `patches` sorted patches are kept, `(patches,)` of ones, then zeros; the gradient is as if soft."""
        rank = torch.arange(patches, device=self.selected_probability.device)
        above = (self.kept_token_candidate > rank[:, None]).to(self.selected_probability.dtype)
        soft = above @ self.selected_probability.softmax(dim=0)
        hard = (rank < self.kept.detach().round()).to(soft.dtype)
        return hard + soft - soft.detach()


class RateSearch(SortedCompression):
    """In training every token stays, and masks hide the removed ones; in evaluation a schedule is followed.

    To search: train the parameters of this module alone, on the model's loss plus a weight times `cost_loss(budget)`,
    then build the method with `learned()`. While it trains, `schedule` is what evaluation follows.
    """

    def __init__(self, backbone: Backbone, prune_kept: Kept, merge_kept: Kept, *, whole_last: bool = False) -> None:
        super().__init__(backbone, prune_kept, merge_kept)
        self.cost = backbone.cost
        self.patches = patches = backbone.patches
        # All tokens pass the first block, and, where the head reads all of them, the last.
        whole = {0, backbone.depth - 1} if whole_last else {0}
        self.blocks = nn.ModuleList()
        for block in range(backbone.depth):
            choice = (patches,) if block in whole else range(patches, 0, -1)
            self.blocks.append(nn.ModuleDict({f"{act}_ddp": RateCandidates(choice) for act in ("prune", "merge")}))

    def attend(
        self, block: int, view: BlockView, state: TokenState, kind: AttentionKind
    ) -> tuple[TokenState, Attended]:
        """Run the attention of `block`; in training nobody sees the tokens that were removed."""
        if not self.training or not state.carried:
            return super().attend(block, view, state, "eager" if self.training else kind)
        attention, x, looks = view.attention, view.norm1(state.x), state.looks(block, proportional=True)
        q, k, v = project(attention, x, looks)
        logits = attention_logits(q, k, attention.scale, looks.size, looks.bias)
        rows = masked_softmax(logits, state.carried[0])
        mixed = dropout(rows.to(v.dtype), attention.dropout, attention.dropout > 0.0) @ v
        seen = Attended(q, k, v, attention.scale, looks.size, rows, looks.bias)
        return replace(state, x=state.x + view.residual1(attention.join(mixed, x))), seen

    def after_attention(self, block: int, state: TokenState, seen: Attended) -> TokenState:
        """Sort; in training then mask what is pruned or merged away, and merge."""
        if not self.training:
            return super().after_attention(block, state, seen)
        mask = state.carried[0] if state.carried else torch.ones_like(state.x[..., 0], dtype=wide(state.x))
        index = with_prefix(by_class_attention(seen, self.prefix), self.prefix)
        state, mask = select(state, index), mask.gather(1, index)
        prune, merge = (self._candidates(block, act).mask(self.patches) for act in ("prune", "merge"))
        pruned = mask * pad(prune, (self.prefix, 0), value=1.0)
        kept = pruned * pad(merge, (self.prefix, 0), value=1.0)
        return replace(masked_merge(state, pruned.detach(), kept.detach(), self.prefix), carried=(kept,))

    def head(self, backbone: Backbone, state: TokenState) -> Tensor:
        """The model's output; a mean over tokens leaves out the removed ones."""
        if self.training and state.size is not None:
            state = replace(state, size=state.size * state.carried[0])
        return super().head(backbone, state)

    def macs(self) -> Tensor:
        """Multiply-accumulates of one image at the expected numbers of tokens, a scalar; differentiable."""
        tokens = torch.tensor(float(self.prefix + self.patches), device=self._candidates(0, "prune").kept.device)
        total = self.cost.embed + self.cost.head + torch.zeros_like(tokens)
        for block, cost in enumerate(self.cost.blocks):
            total = total + cost.linear * tokens + cost.pairs * tokens**2
            for act in ("prune", "merge"):
                tokens = torch.minimum(tokens, self.prefix + self._candidates(block, act).kept)
            total = total + cost.mlp * tokens
        return total

    def cost_loss(self, budget: float) -> Tensor:
        """The squared distance of the model's cost from `budget`, both in GMAC; to be weighed and added."""
        return (self.macs() / 1e9 - budget) ** 2

    def learned(self) -> tuple[Kept, Kept]:
        """The schedule that was found: tokens left in each block after pruning, and after merging."""
        numbers = range(len(self.blocks))
        prune, merge = (
            tuple(self.prefix + round(float(self._candidates(block, act).kept)) for block in numbers)
            for act in ("prune", "merge")
        )
        return prune, merge

    def _candidates(self, block: int, act: str) -> RateCandidates:
        return cast("RateCandidates", cast("nn.ModuleDict", self.blocks[block])[f"{act}_ddp"])


def masked_softmax(logits: Tensor, mask: Tensor) -> Tensor:
    """Softmax of `logits` `(B, heads, N, N)` over the keys whose `mask` `(B, N)` is 1; differentiable in the mask."""
    weights = (logits - logits.detach().amax(dim=-1, keepdim=True)).exp() * mask[:, None, None, :]
    return weights / weights.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)


def masked_merge(state: TokenState, pruned: Tensor, kept: Tensor, prefix: int) -> TokenState:
    """Merge the tokens that `pruned` `(B, N)` leaves and `kept` `(B, N)` does not, as `merge_last` does, all in place.

    Both are of ones and zeros. Every token stays; those that merged are to be hidden. Sizes are 1 at least, as the
    release has it in training.
    """
    x = state.x
    size = torch.ones_like(kept) if state.size is None else state.size
    barred = kept < 0.5
    barred[:, :prefix] = True
    best, into = cosines(x, x).masked_fill(barred[:, None], -torch.inf).max(dim=2)
    gives = pruned - kept
    best = torch.where(gives > 0, best, 0.0)
    rows = into[..., None].expand_as(x)
    summed = x.scatter_add(1, rows, x * gives[..., None].to(x.dtype))
    members = torch.ones_like(gives).scatter_add(1, into, gives)
    size = size.scatter_add(1, into, (gives * size * best).to(size.dtype)).clamp(min=1.0)
    return replace(state, x=summed / members[..., None].to(x.dtype), size=size)
