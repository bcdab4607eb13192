"""The Q-Former of BLIP-2 (arXiv 2301.12597, section 3.1) as SEED keeps it: queries only, under BERT's key names."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.bert import EPS, Output

__all__ = ["QFormer"]

CAUSAL_COUNT = 32
"""Quirk of SEED (qformer_causual.py): queries see only those before them where there are exactly 32, else all."""


class Attention(nn.Module):
    """Multi-head attention without its output projection."""

    def __init__(self, width: int, heads: int, context: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(inputs, width) for inputs in (width, context, context))

    def forward(self, x: Tensor, context: Tensor, *, causal: bool = False) -> Tensor:
        """`(B, N, width)` looks at `(B, L, context)` and gives its own shape."""
        query, key, value = (
            rows.reshape(*rows.shape[:2], self.heads, rows.shape[2] // self.heads).transpose(1, 2)
            for rows in (self.query(x), self.key(context), self.value(context))
        )
        # The release adds -10000 to masked scores, of which a softmax leaves nothing.
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=causal)
        return mixed.transpose(1, 2).reshape(x.shape)


def _attention(width: int, heads: int, context: int) -> nn.ModuleDict:
    return nn.ModuleDict({"self": Attention(width, heads, context), "output": Output(width, width, 0.0)})


class Layer(nn.Module):
    """Self-attention, cross-attention in some layers, and an MLP with GELU, each with the norm behind the sum."""

    def __init__(self, width: int, heads: int, hidden: int, context: int | None) -> None:
        super().__init__()
        self.attention = _attention(width, heads, width)
        self.crossattention = None if context is None else _attention(width, heads, context)
        # Those of the text side, without the suffix, are deleted before the release loads its weights.
        self.intermediate_query = nn.ModuleDict({"dense": nn.Linear(width, hidden)})
        self.output_query = Output(hidden, width, 0.0)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Queries `(B, N, width)` and a context `(B, L, C)` to queries."""
        mixed = self.attention["self"](x, x, causal=x.shape[1] == CAUSAL_COUNT)
        x = self.attention["output"](mixed, x)
        if self.crossattention is not None:
            x = self.crossattention["output"](self.crossattention["self"](x, context), x)
        out: Tensor = self.output_query(functional.gelu(self.intermediate_query["dense"](x)), x)
        return out


class QueryEmbeddings(nn.Module):
    """The norm of the queries, which have no positions."""

    position_ids: Tensor

    def __init__(self, width: int, positions: int) -> None:
        super().__init__()
        self.LayerNorm = nn.LayerNorm(width, eps=EPS)
        # Left from BERT: in the checkpoint, and of no use without words.
        self.register_buffer("position_ids", torch.arange(positions)[None])

    def forward(self, queries: Tensor) -> Tensor:
        """`(B, N, width)` to the same shape."""
        out: Tensor = self.LayerNorm(queries)
        return out


class QFormer(nn.Module):
    """Queries that gather what an image's features hold.

    Args:
        dim: Width.
        layers: Number of layers; every second one, from the first on, looks at the image.
        heads: Attention heads.
        mlp: Hidden width of the MLPs.
        positions: Length of a table of positions that checkpoints have.
        context: Channels of the image's features.
    """

    def __init__(self, *, dim: int, layers: int, heads: int, mlp: int, positions: int, context: int) -> None:
        super().__init__()
        self.embeddings = QueryEmbeddings(dim, positions)
        stack = (Layer(dim, heads, mlp, None if index % 2 else context) for index in range(layers))
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(stack)})

    def forward(self, queries: Tensor, features: Tensor) -> Tensor:
        """Queries `(B, N, dim)` and features `(B, L, context)` to `(B, N, dim)`."""
        hidden: Tensor = self.embeddings(queries)
        for layer in self.encoder["layer"]:  # type: ignore[attr-defined]
            hidden = layer(hidden, features)
        return hidden
