"""Sinkhorn: before three blocks, an entropic transport plan shares the patches out among learned centres."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from reference_impls.layers.soft_clusters import LAYOUT, ClusterLayer, SoftClusters
from reference_impls.layers.stages import KEEP_RATE, Stages, haurum_variants
from reference_impls.layers.vit_attention import wide
from reference_impls.layers.vit_backbone import Backbone
from reference_impls.layers.vit_driver import reducer
from tokenmark.contracts import BudgetError, Paper


@dataclass(frozen=True, slots=True)
class SinkhornSettings(Stages):
    """How many new tokens are left at each stage, and how their plan is made."""

    iterations: int = 3
    """Rounds of Sinkhorn's algorithm; each fits the centres' sums, then the patches'."""
    eps: float = 1.0
    """By which cosines are divided: the less, the harder the plan."""


class TransportPlan(ClusterLayer):
    """Cosines of learned centres and patches, made a plan by Sinkhorn's algorithm; mixes the patches at length one.

    The release also writes the centres back at length one when it runs, which changes nothing of what they give.
    """

    def __init__(self, width: int, count: int, iterations: int, eps: float) -> None:
        super().__init__()
        self.v = nn.Parameter(normalize(torch.randn(count, width), dim=1))
        self.iterations, self.eps = iterations, eps

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The plan `(B, K, N)`, and `x` `(B, N, C)` at length one."""
        x = normalize(x, dim=2)
        cosines = normalize(self.v, dim=1) @ x.transpose(1, 2)
        return sinkhorn_plan(cosines.to(wide(cosines)) / self.eps, self.iterations), x

    def macs(self, patches: int) -> int:
        """Of the cosines."""
        return patches * self.v.numel()


class SinkhornClusters(SoftClusters):
    """One transport plan before every stage's block."""

    def __init__(self, backbone: Backbone, settings: SinkhornSettings) -> None:
        if settings.iterations < 0 or not settings.eps > 0:
            raise BudgetError(
                f"iterations {settings.iterations} must not be negative, and eps {settings.eps} be above 0"
            )
        super().__init__(backbone, settings)

    def layer(self, count: int, settings: Stages) -> TransportPlan:
        """One set of centres per stage."""
        assert isinstance(settings, SinkhornSettings)  # noqa: S101  for the type
        return TransportPlan(self.width, count, settings.iterations, settings.eps)


def sinkhorn_plan(scores: Tensor, iterations: int) -> Tensor:
    """The plan `(B, K, N)` of `scores` `(B, K, N)`: exp(scores) with rows, then columns, scaled to sum to one.

    In logarithms. Rows and columns cannot all sum to one unless K = N: the columns do after every round.
    """
    share = -math.log(scores.shape[1] + scores.shape[2])
    rows, columns = torch.zeros_like(scores[:, :, :1]), torch.zeros_like(scores[:, :1])
    for _ in range(iterations):
        rows = share - (scores + columns).logsumexp(dim=2, keepdim=True)
        columns = share - (scores + rows).logsumexp(dim=1, keepdim=True)
    return (scores + rows + columns - share).exp()


METHOD = reducer(
    SinkhornClusters,
    id="sinkhorn",
    title="Sinkhorn",
    idea="Before three blocks, an entropic transport plan shares the patches out among learned centres.",
    acts="before 3 blocks",
    paper=Paper(
        title="Multi-scale hybrid vision transformer and Sinkhorn tokenizer for sewer defect classification",
        authors="Haurum, Madadi, Escalera, Moeslund",
        year=2022,
        url="https://doi.org/10.1016/j.autcon.2022.104614",
    ),
    settings=SinkhornSettings,
    knob=KEEP_RATE,
    trained=True,
    variants=haurum_variants(),
    layout=LAYOUT,
)
