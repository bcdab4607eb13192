"""Which code is drawn from logits: temperature, the likeliest k, the nucleus, and the race."""

import torch
from torch import Tensor

from reference_impls.layers.noise import drawn_by_race
from reference_impls.layers.precision import at_least_float32

__all__ = ["among_likeliest", "drawn_code", "in_nucleus"]


def drawn_code(
    logits: Tensor, uniform: Tensor, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0
) -> Tensor:
    """Codes int64 `(...)` for logits and uniform noise `(..., K)`.

    The temperature comes first, then the likeliest k, then the nucleus, each of what the one before it left.

    Args:
        logits: `(..., K)`.
        uniform: Of the same shape, in [0, 1).
        temperature: What logits are divided by.
        top_k: Codes to choose from; 0 for all.
        top_p: Probability of the nucleus; 1 for all.
    """
    logits = in_nucleus(among_likeliest(at_least_float32(logits) / temperature, top_k), top_p)
    return drawn_by_race(logits.softmax(-1), uniform.to(logits))


def among_likeliest(logits: Tensor, count: int) -> Tensor:
    """`logits` `(..., K)`, minus infinity beneath the `count`-th of them; ties with it stay; 0 keeps all."""
    if count < 1 or count >= logits.shape[-1]:
        return logits
    least = logits.topk(count, dim=-1).values[..., -1:]
    return logits.masked_fill(logits < least, -torch.inf)


def in_nucleus(logits: Tensor, share: float) -> Tensor:
    """`logits` `(..., K)`, minus infinity behind the first that takes their probability above `share`; 1 keeps all."""
    if share >= 1.0:
        return logits
    ordered, places = logits.sort(dim=-1, descending=True)
    before = ordered.softmax(-1).cumsum(-1).roll(1, dims=-1)
    before[..., 0] = 0.0
    return logits.masked_fill((before > share).scatter(-1, places, before > share), -torch.inf)
