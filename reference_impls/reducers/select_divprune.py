"""DivPrune's rule: once, keep the patches that are the most different from each other (max-min diversity).

Read: the paper's abstract, and how a public toolkit for compressing vision-language models (LLMC, Apache-2.0) does it.
Distance is 1 - cosine of the tokens. The first token kept is the one whose nearest other token is the farthest; each
next one is the one whose nearest kept token is the farthest. Kept tokens stay in their order. The toolkit rounds the
number of tokens, here it is int(patches * keep_rate) as everywhere in this package.

This is the selection rule alone, inside a vision encoder; not the vision-language system.
"""

import torch
from torch import Tensor

from reference_impls.layers.matching import cosines
from reference_impls.layers.reduction import TokenState
from reference_impls.layers.single_stage import ONCE, SingleStage, SingleStageSelection
from reference_impls.layers.stages import KEEP_RATE
from reference_impls.layers.vit_attention import Attended
from reference_impls.layers.vit_backbone import Backbone
from reference_impls.layers.vit_driver import reducer
from tokenmark.contracts import Paper


class DivPruneRule(SingleStageSelection):
    """Picks patches one by one, each the farthest from those already picked."""

    def __init__(self, backbone: Backbone, settings: SingleStage) -> None:
        super().__init__(backbone, settings)
        self.width = backbone.width

    @property
    def extra_macs(self) -> int:
        """The cosines between all patches."""
        return self.patches**2 * self.width if self.prunes else 0

    def choose(self, state: TokenState, seen: Attended) -> Tensor:
        """The most diverse."""
        del seen
        patches = state.x[:, self.prefix :]
        return farthest_points(1 - cosines(patches, patches), self.keep)


def farthest_points(distances: Tensor, count: int) -> Tensor:
    """Indices `(B, count)` of points far from each other, by their `distances` `(B, N, N)`, in the order of picking.

    Greedy: the point whose nearest other is the farthest, then again and again the point whose nearest picked one is
    the farthest; of equal ones the earliest. 1 <= count <= N.
    """
    itself = torch.eye(distances.shape[1], dtype=torch.bool, device=distances.device)
    picked = [distances.masked_fill(itself, torch.inf).amin(dim=2).argmax(dim=1, keepdim=True)]
    nearest = torch.full_like(distances[:, 0], torch.inf)
    for _ in range(count - 1):
        last = picked[-1]
        row = distances.gather(1, last[..., None].expand(-1, -1, distances.shape[2])).squeeze(1)
        # A picked point is never picked again, not even where rounding leaves a copy of it below zero.
        nearest = nearest.minimum(row).scatter(1, last, -torch.inf)
        picked.append(nearest.argmax(dim=1, keepdim=True))
    return torch.cat(picked, dim=1)


METHOD = reducer(
    DivPruneRule,
    id="select-divprune",
    title="DivPrune's selection",
    idea="Once, keep the patches that are the most different from each other, picked one by one.",
    acts=ONCE,
    paper=Paper(
        title="DivPrune: Diversity-based Visual Token Pruning for Large Multimodal Models",
        authors="Alvar, Singh, Akbari, Zhang",
        year=2025,
        url="https://arxiv.org/abs/2503.02175",
    ),
    settings=SingleStage,
    knob=KEEP_RATE,
)
