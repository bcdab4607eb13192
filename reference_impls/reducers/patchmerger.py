"""PatchMerger: before three blocks, learned queries look at the patches, and what each sees becomes a new token."""

import torch
from torch import Tensor, nn

from reference_impls.layers.soft_clusters import LAYOUT, ClusterLayer, SoftClusters
from reference_impls.layers.stages import KEEP_RATE, Stages, haurum_variants
from reference_impls.layers.vit_attention import wide
from reference_impls.layers.vit_driver import reducer
from tokenmark.contracts import Paper


class MergingQueries(ClusterLayer):
    """Products of learned queries and normed patches, not scaled, softmaxed over the patches; mixes the normed ones."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.queries = nn.Parameter(torch.randn(count, width) * width**-0.5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The weights `(B, K, N)`, and the normed `x` `(B, N, C)`."""
        x = self.norm(x)
        logits = self.queries @ x.transpose(1, 2)
        return logits.softmax(dim=2, dtype=wide(logits)), x

    def macs(self, patches: int) -> int:
        """Of the products."""
        return patches * self.queries.numel()


class PatchMerging(SoftClusters):
    """One merger before every stage's block; the paper has a single one in the middle of the model."""

    def layer(self, count: int, settings: Stages) -> MergingQueries:
        """One merger per stage."""
        del settings
        return MergingQueries(self.width, count)


METHOD = reducer(
    PatchMerging,
    id="patchmerger",
    title="PatchMerger",
    idea="Before three blocks, learned queries attend to the patches; what each sees becomes a new token.",
    acts="before 3 blocks",
    paper=Paper(
        title="Learning to Merge Tokens in Vision Transformers",
        authors="Renggli, Pinto, Houlsby, Mustafa, Puigcerver, Riquelme",
        year=2022,
        url="https://arxiv.org/abs/2202.12015",
    ),
    settings=Stages,
    knob=KEEP_RATE,
    trained=True,
    variants=haurum_variants(),
    layout=LAYOUT,
)
