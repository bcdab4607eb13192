"""DynamicViT's parts: the predictor of what to keep, its straight-through decision, masked attention, the ratio loss.

Rao et al., "DynamicViT: Efficient Vision Transformers with Dynamic Token Sparsification", NeurIPS 2021, section 3.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import gumbel_softmax

from reference_impls.layers.vit_attention import wide
from tokenmark.contracts import MethodError

__all__ = ["TokenPredictor", "decide", "policy_softmax", "ratio_loss"]


class TokenPredictor(nn.Module):
    """Log-probabilities of keeping and of dropping every token (section 3.2).

    Half of a token's features are its own; the other half is their mean over the tokens that are still kept.
    """

    def __init__(self, width: int, norm_eps: float = 1e-5, eps: float = 0.0) -> None:
        """`width`: channels of a token; `eps`: what is added to the mean (DynamicViT: nothing; Haurum et al.: 1e-6)."""
        super().__init__()
        self.in_conv = nn.Sequential(nn.LayerNorm(width, eps=norm_eps), nn.Linear(width, width), nn.GELU())
        self.out_conv = nn.Sequential(
            nn.Linear(width, width // 2),
            nn.GELU(),
            nn.Linear(width // 2, width // 4),
            nn.GELU(),
            nn.Linear(width // 4, 2),
        )
        self.eps = eps

    def forward(self, x: Tensor, decision: Tensor | None = None) -> Tensor:
        """Log-probabilities `(B, N, 2)`, keep first, of tokens `x` `(B, N, C)`; float32 or wider, as they are ranked.

        `decision` `(B, N)` is 1 for the tokens that count in the mean, 0 for those that were dropped; None: all do.
        """
        features = self.in_conv(x)
        local, spread = features.chunk(2, dim=-1)
        if decision is None:
            mean = spread.mean(dim=1, keepdim=True)
        else:
            weights = decision[..., None].to(spread.dtype)
            total = weights.sum(dim=1, keepdim=True).clamp(min=1e-6)  # chance may have dropped them all
            mean = (spread * weights).sum(dim=1, keepdim=True) / total
        logits: Tensor = self.out_conv(torch.cat((local, (mean + self.eps).expand_as(local)), dim=-1))
        return logits.log_softmax(dim=-1, dtype=wide(logits))

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one token."""
        return sum(part.weight.numel() for part in self.modules() if isinstance(part, nn.Linear))


def decide(log_probabilities: Tensor, decision: Tensor) -> Tensor:
    """Draw which tokens are kept in training: 1 or 0, `(B, N)`, never 1 where `decision` `(B, N)` is 0.

    A hard Gumbel softmax whose gradient is the soft one's (section 3.3). Draws from torch's global generator.
    """
    return gumbel_softmax(log_probabilities, hard=True)[..., 0] * decision


def policy_softmax(logits: Tensor, decision: Tensor, eps: float = 1e-6) -> Tensor:
    """Softmax of attention `logits` `(B, heads, N, N)` over the keys that are kept (section 3.3).

    `decision` `(B, N)` is 1 for kept tokens, 0 for dropped ones; a token always sees itself. Its gradient reaches the
    decision of dropped tokens too, which a mask of -inf would cut off. `eps` keeps rows apart from 0 / 0. In float32
    or wider.
    """
    logits, tokens = logits.to(wide(logits)), logits.shape[-1]
    itself = torch.eye(tokens, dtype=decision.dtype, device=decision.device)
    seen = decision[:, None, None, :] * (1 - itself) + itself
    peak = logits.amax(dim=-1, keepdim=True).detach()
    weights = (logits - peak).exp() * seen
    return (weights + eps / tokens) / (weights.sum(dim=-1, keepdim=True) + eps)


def ratio_loss(decisions: Sequence[Tensor], ratios: Sequence[float]) -> Tensor:
    """How far the kept share of every image is from its target: the mean of squared differences (section 3.4).

    `decisions`: one `(B, N)` per stage of a training pass, 1 or 0; `ratios`: the share of the original tokens that each
    is to keep.

    Raises:
        MethodError: there are no decisions, for there was no training pass.
    """
    if not decisions:
        raise MethodError("the ratio loss is of a training pass: call the model in training mode first")
    kept = torch.stack([decision.mean(dim=1) for decision in decisions])
    wanted = torch.tensor(ratios, dtype=kept.dtype, device=kept.device)[:, None]
    return (kept - wanted).square().mean()
