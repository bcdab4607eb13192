"""What vectors of MAR's samplers, and of those after it, have in common: their noise, and one call of the head."""

import torch
from torch import Tensor

from reference_impls.layers.denoising_mlp import DenoisingMLP
from reference_impls.layers.diffusion import guide
from reference_impls.parity._recorded import Recorded
from tokenmark.contracts import ParityCase

__all__ = ["as_uniform", "gaussian", "head_outputs", "recorded"]


def gaussian(uniform: Tensor) -> Tensor:
    """Standard normal numbers of uniform ones in [-1, 1)."""
    inside = 1.0 - 2.0**-53
    found: Tensor = 2.0**0.5 * torch.special.erfinv(uniform.clamp(-inside, inside))
    return found


def as_uniform(orders: Tensor) -> Tensor:
    """Numbers in [0, 1) that sort into `orders` `(B, N)`."""
    ranks = torch.arange(orders.shape[1], dtype=torch.float64) / orders.shape[1]
    return torch.zeros(orders.shape, dtype=torch.float64).scatter(1, orders, ranks.expand(orders.shape))


def recorded(case: ParityCase, run: str) -> Recorded:
    """The noise of a sample: an order, and by place that of the start and of all diffusion steps."""
    start, steps = (gaussian(case.inputs[f"noise_{name}_{run}"]) for name in ("start", "steps"))
    order = as_uniform(case.inputs["orders"])
    return Recorded({"order": order[None], "start": start[None], "steps": steps.transpose(0, 1)[None]})


def head_outputs(
    head: DenoisingMLP, case: ParityCase, features: Tensor, dropped: Tensor, scale: float
) -> dict[str, Tensor]:
    """What the head gives for features `(M, D)`, and guided by those of the dropped class."""
    x, times = case.inputs["head_x"], case.inputs["head_t"]
    conditional, unconditional = (head(x, times, each) for each in (features, dropped))
    guided = guide(conditional, unconditional, scale, head.channels)
    # The releases keep both halves, which differ in the variance only.
    other = torch.cat([guided[:, : head.channels], unconditional[:, head.channels :]], dim=1)
    return {"head_prediction": conditional, "head_prediction_guided": torch.cat([guided, other])}
