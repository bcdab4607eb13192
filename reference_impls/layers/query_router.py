"""Cropr's router: a learned query scores tokens, and learns to from a classifier of its own.

Bergner et al., "Token Cropr: Faster ViTs for Quite a Few Tasks", CVPR 2025; layers and initial values as released.
"""

from typing import Any, cast

import torch
from timm.layers.mlp import Mlp
from torch import Tensor, nn

from reference_impls.layers.vit_attention import wide

__all__ = ["QueryAttention", "QueryRouter"]


class QueryAttention(nn.Module):
    """One learned query that looks at all tokens: raw products are their scores, the softmax's mix the aggregate."""

    def __init__(
        self,
        width: int,
        *,
        heads: int = 1,
        pre_attn_norm: bool = False,
        q_proj: bool = False,
        k_proj: bool = False,
        v_proj: bool = False,
        mlp: bool = True,
        mlp_ratio: float = 4.0,
    ) -> None:
        """`width`: channels of a token, which `heads` must divide; the rest says which layers there are."""
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.queries = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, width), std=width**-0.5))
        self.attn_norm = nn.LayerNorm(width, eps=1e-6) if pre_attn_norm else nn.Identity()
        self.q = nn.Linear(width, width, bias=False) if q_proj else nn.Identity()
        self.k = nn.Linear(width, width, bias=False) if k_proj else nn.Identity()
        self.v = nn.Linear(width, width, bias=False) if v_proj else nn.Identity()
        self.proj = nn.Linear(width, width) if heads > 1 else nn.Identity()
        self.mlp_norm = nn.LayerNorm(width, eps=1e-6) if mlp else nn.Identity()
        self.mlp = Mlp(width, int(width * mlp_ratio)) if mlp else None

    def scores(self, x: Tensor) -> Tensor:
        """Scores `(B, N)` of tokens `x` `(B, N, C)`: products summed over heads, not scaled; float32 or wider."""
        k, q = self.k(self.attn_norm(x)), self.q(self.queries)
        return cast("Tensor", (k.to(wide(k)) * q.to(wide(k))).sum(dim=-1))

    def forward(self, x: Tensor) -> Tensor:
        """The aggregate `(B, C)` of tokens `x` `(B, N, C)`."""
        x = self.attn_norm(x)
        parts = (self.q(self.queries), self.k(x), self.v(x))
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        mixed = (q * self.scale @ k.transpose(2, 3)).softmax(dim=-1).to(v.dtype) @ v
        mixed = self.proj(mixed.transpose(1, 2).flatten(1))
        return mixed if self.mlp is None else cast("Tensor", mixed + self.mlp(self.mlp_norm(mixed)))


class QueryRouter(nn.Module):
    """Scores tokens; its classifier is of training alone."""

    def __init__(self, width: int, classes: int, **layers: Any) -> None:
        """`layers`: the options of `QueryAttention`."""
        super().__init__()
        self.cross_attn = QueryAttention(width, **layers)
        classifier = nn.Linear(width, classes)
        nn.init.trunc_normal_(classifier.weight, std=0.02)
        nn.init.zeros_(classifier.bias)
        self.head = nn.ModuleDict({"norm": nn.LayerNorm(width), "head": classifier})

    def scores(self, x: Tensor) -> Tensor:
        """Scores `(B, N)` of tokens `x` `(B, N, C)`."""
        return self.cross_attn.scores(x)

    def forward(self, x: Tensor) -> Tensor:
        """Auxiliary logits `(B, classes)` of tokens `x` `(B, N, C)`; gradients go no further back than the router."""
        return cast("Tensor", self.head["head"](self.head["norm"](self.cross_attn(x.detach()))))

    @property
    def macs(self) -> tuple[int, int]:
        """Multiply-accumulates of the scores: for one token, and once per image."""
        width = self.cross_attn.queries.shape[2]
        projections = [isinstance(layer, nn.Linear) for layer in (self.cross_attn.k, self.cross_attn.q)]
        return width + projections[0] * width**2, projections[1] * width**2
