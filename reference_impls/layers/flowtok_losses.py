"""How FlowTok is trained (arXiv 2503.10772, section 3.3): flow matching, a divergence, and a contrast of texts."""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from reference_impls.layers.flowtok_network import TextGaussian
from tokenmark.contracts import MethodError

__all__ = ["PAPER", "RELEASED", "FlowLosses", "TrainRules", "contrast", "divergence", "drawn_times", "unpaired"]

SIXTH_FACTOR, SIXTH_POWER = 0.3, 6
"""Of the divergence that leaves small means alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRules:
    """What paper and re-implementation have each in its own way, or the paper leaves open."""

    kl: Literal["standard", "sixth-power"] = "standard"
    """From the standard normal; or with (0.3 mean)^6 for mean^2. Summed over a text, a mean over the batch."""
    kl_weight: float = 1e-4
    align_weight: float = 1.0
    times: Literal["logit-normal", "uniform"] = "logit-normal"
    """The law of times; the paper does not say."""

    def __post_init__(self) -> None:
        if self.kl not in ("standard", "sixth-power"):
            raise MethodError(f"kl must be standard or sixth-power, got '{self.kl}'")
        if self.times not in ("logit-normal", "uniform"):
            raise MethodError(f"times must be logit-normal or uniform, got '{self.times}'")
        for name, value in (("kl_weight", self.kl_weight), ("align_weight", self.align_weight)):
            if not 0.0 <= value < math.inf:
                raise MethodError(f"{name} must be a number from 0 on, got {value}")


PAPER = TrainRules()
"""As the paper says; its law of times is the re-implementation's."""
RELEASED = TrainRules(kl="sixth-power", kl_weight=0.01)
"""As the authors' re-implementation does."""


class FlowLosses(NamedTuple):
    """Scalars; the last one is what is to be made small."""

    flow: Tensor
    kl: Tensor
    align: Tensor
    total: Tensor


def divergence(text: TextGaussian, kind: Literal["standard", "sixth-power"]) -> Tensor:
    """-1/2 sum(1 + log s^2 - f(mean) - s^2) over a text, a mean over the batch; f squares, or is (0.3 mean)^6."""
    means = text.mean.square() if kind == "standard" else (SIXTH_FACTOR * text.mean) ** SIXTH_POWER
    each = 1.0 + text.log_variance - means - text.log_variance.exp()
    return -0.5 * each.flatten(1).sum(1).mean()


def contrast(left: Tensor, right: Tensor, log_scale: Tensor) -> Tensor:
    """CLIP's loss (arXiv 2103.00020): of `left` and `right` `(B, ...)` the same rows belong together, in both ways."""
    rows, columns = (functional.normalize(part.flatten(1), dim=1) for part in (left, right))
    logits = log_scale.exp() * rows @ columns.T
    wanted = torch.arange(len(logits), device=logits.device)
    return (functional.cross_entropy(logits, wanted) + functional.cross_entropy(logits.T, wanted)) / 2.0


def unpaired(targets: Tensor, null: Tensor) -> Tensor:
    """`targets` `(B, ...)`, each of those that are `null` (bool, `(B,)`) given that of the null one before it."""
    order = torch.arange(len(targets), device=targets.device)
    places = order[null]
    order = order.index_put((places,), places.roll(1))
    return targets[order]


def drawn_times(rules: TrainRules, noise: Tensor) -> Tensor:
    """Times `(B,)` in (0, 1) of standard normal `noise` `(B,)`."""
    if rules.times == "logit-normal":
        return noise.sigmoid()
    return 0.5 * (1.0 + torch.erf(noise / math.sqrt(2.0)))
