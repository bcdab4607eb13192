"""Learned soft clusters: before a few blocks, every patch is shared out among fewer new tokens."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from reference_impls.layers.reduction import TokenState, remake, with_prefix
from reference_impls.layers.stages import StagedReduction, Stages
from reference_impls.layers.vit_backbone import Backbone
from tokenmark.contracts import Layout

__all__ = ["LAYOUT", "ClusterLayer", "SoftClusters"]

LAYOUT = Layout(renames=((r"^(cluster_layers\.)", r"reduction.\1"), (r"^(?!reduction\.)", "model.")))
"""Haurum et al. keep what a stage learns of clusters in `cluster_layers`, beside the model."""


class ClusterLayer(nn.Module, ABC):
    """What one stage learns."""

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The weights `(B, K, N)` of patches `x` `(B, N, C)` in K new tokens, and what they mix, `(B, N, C)`."""

    @abstractmethod
    def macs(self, patches: int) -> int:
        """Multiply-accumulates of `forward` for an image of so many patches."""


class SoftClusters(StagedReduction, ABC):
    """Replaces the patches before a stage's block by mixes of all of them; prefix tokens stay as they are."""

    where = "before_block"
    makes_tokens = True

    def __init__(self, backbone: Backbone, settings: Stages) -> None:
        super().__init__(backbone, settings)
        self.width = backbone.width
        counts = [self.schedule[block].attention - self.prefix for block in settings.blocks]
        self.cluster_layers = nn.ModuleList(self.layer(count, settings) for count in counts)

    @abstractmethod
    def layer(self, count: int, settings: Stages) -> ClusterLayer:
        """What makes `count` new tokens."""

    @property
    def extra_macs(self) -> int:
        """The layers, and the mixing."""
        total = 0
        for block, layer in zip(self.stages, self.cluster_layers, strict=True):
            if self.shrinks_before(block):
                patches, count = self.arriving(block) - self.prefix, self.schedule[block].attention - self.prefix
                total += layer.macs(patches) + count * patches * self.width  # type: ignore[operator]
        return total

    def before_block(self, block: int, state: TokenState) -> TokenState:
        """Mix new tokens; a trace follows each patch to the one that takes most of it."""
        if not self.shrinks_before(block):
            return state
        prefix, patches = state.x[:, : self.prefix], state.x[:, self.prefix :]
        weights, values = self.cluster_layers[self.stages[block]](patches)
        mixed = (weights.to(values.dtype) @ values).to(prefix.dtype)
        goes_to = None if state.source is None else with_prefix(weights.argmax(dim=1), self.prefix)
        return remake(state, torch.cat((prefix, mixed), dim=1), goes_to)
