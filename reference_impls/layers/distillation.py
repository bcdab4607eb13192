"""What a model that drops tokens learns from the whole one (Rao et al., DynamicViT, NeurIPS 2021, section 3.4)."""

from torch import Tensor
from torch.nn.functional import kl_div

__all__ = ["logit_distillation", "token_distillation"]


def logit_distillation(logits: Tensor, teacher: Tensor) -> Tensor:
    """KL divergence of the predictions from the teacher's, the mean over images; both `(B, classes)`.

    The teacher gets no gradient.
    """
    target = teacher.detach().log_softmax(dim=-1)
    return kl_div(logits.log_softmax(dim=-1), target, reduction="batchmean", log_target=True)


def token_distillation(tokens: Tensor, teacher: Tensor, decision: Tensor) -> Tensor:
    """Squared difference of the last block's tokens from the teacher's, both `(B, N, C)`: mean over kept and channels.

    `decision` `(B, N)` is 1 for tokens that are still kept, 0 for others; neither it nor the teacher gets a gradient.
    Where no token is kept the loss is 0.
    """
    kept = decision.detach()[..., None].to(tokens.dtype)
    total = (kept * (tokens - teacher.detach())).square().sum()
    return total / (kept.sum() * tokens.shape[2]).clamp(min=1.0)
