"""SiT (self-slimmed): before three blocks, a small network shares every patch out among fewer new tokens."""

import torch
from torch import Tensor, nn

from reference_impls.layers.soft_clusters import LAYOUT, ClusterLayer, SoftClusters
from reference_impls.layers.stages import KEEP_RATE, Stages, haurum_variants
from reference_impls.layers.vit_attention import wide
from reference_impls.layers.vit_driver import reducer
from tokenmark.contracts import Paper


class TokenSlimming(ClusterLayer):
    """Weights by a network of two layers, softmaxed over the patches; mixes the patches themselves."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.weight = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width // 2), nn.GELU(), nn.Linear(width // 2, count)
        )
        self.scale = nn.Parameter(torch.ones(1, 1, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The weights `(B, K, N)`, and `x` `(B, N, C)`."""
        logits = (self.weight(x) * self.scale).transpose(1, 2)
        return logits.softmax(dim=2, dtype=wide(logits)), x

    def macs(self, patches: int) -> int:
        """Of both layers."""
        return patches * sum(part.weight.numel() for part in self.weight if isinstance(part, nn.Linear))


class SelfSlimming(SoftClusters):
    """SiT's token slimming module, as Haurum et al. put it before their stages."""

    def layer(self, count: int, settings: Stages) -> TokenSlimming:
        """One module per stage."""
        del settings
        return TokenSlimming(self.width, count)


METHOD = reducer(
    SelfSlimming,
    id="sit",
    title="SiT (self-slimmed)",
    idea="Before three blocks, a small network shares every patch out among fewer new tokens.",
    acts="before 3 blocks",
    paper=Paper(
        title="Self-slimmed Vision Transformer",
        authors="Zong, Li, Song, Wang, Qiao, Leng, Liu",
        year=2022,
        url="https://arxiv.org/abs/2111.12624",
    ),
    settings=Stages,
    knob=KEEP_RATE,
    trained=True,
    variants=haurum_variants(),
    layout=LAYOUT,
)
