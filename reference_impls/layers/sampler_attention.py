"""Self-attention of some tokens to others whose keys and values were computed before."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

__all__ = ["asked_of_all", "recalling"]

Recall = Callable[[str, Tensor], Tensor]
"""From the `key` or `value` of some tokens `(B, M, C)` to that of all, `(B, N, C)`."""


def asked_of_all(attention: Any, x: Tensor, recall: Recall) -> Tensor:
    """Attention, a module of timm, of tokens `x` `(B, M, C)` to all those that `recall` gives, `(B, M, C)`."""
    query, key, value = attention.qkv(x).chunk(3, dim=2)
    query, key, value = (
        tokens.unflatten(2, (attention.num_heads, -1)).transpose(1, 2)
        for tokens in (query, recall("key", key), recall("value", value))
    )
    query, key = attention.q_norm(query), attention.k_norm(key)
    out = scaled_dot_product_attention(query, key, value, scale=attention.scale)
    projected: Tensor = attention.proj_drop(attention.proj(attention.norm(out.transpose(1, 2).flatten(2))))
    return projected


@contextmanager
def recalling(attention: Any, recall: Recall) -> Iterator[None]:
    """Within it, the keys and values of diffusers' attention are those that `recall` gives."""
    projections: dict[str, nn.Module] = {"key": attention.to_k, "value": attention.to_v}
    for name, projection in projections.items():
        projection.forward = _recalled(name, projection.forward, recall)
    try:
        yield
    finally:
        for projection in projections.values():
            del projection.forward  # the class's own again


def _recalled(name: str, run: Callable[..., Tensor], recall: Recall) -> Callable[..., Tensor]:
    return lambda x, *args, **kwargs: recall(name, run(x, *args, **kwargs))
