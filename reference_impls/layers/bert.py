"""A BERT encoder over class and image tokens, under Hugging Face's key names.

TiTok's generators for L-32 and B-64 are this network (`ImageBert`, modeling/maskgit.py of bytedance/1d-tokenizer).
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["ImageBertModel", "embedding_table", "initialise_linear"]

EPS = 1e-12


def embedding_table(rows: int, width: int) -> nn.Embedding:
    """An embedding whose rows are drawn with standard deviation 0.02."""
    return nn.Embedding(rows, width, _weight=nn.init.trunc_normal_(torch.empty(rows, width), std=0.02))


def initialise_linear(module: nn.Module) -> None:
    """Weights with standard deviation 0.02 and no bias, where `module` is linear."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class SelfAttention(nn.Module):
    """Multi-head self-attention without its output projection."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, L, width)` to the same shape."""
        batch, length, width = x.shape
        query, key, value = (
            project(x).reshape(batch, length, self.heads, width // self.heads).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        dropout = self.dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        return mixed.transpose(1, 2).reshape(batch, length, width)


class Output(nn.Module):
    """Projection back to the stream, then the norm of the sum: BERT is post-norm."""

    def __init__(self, inputs: int, width: int, dropout: float) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, width)
        self.LayerNorm = nn.LayerNorm(width, eps=EPS)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, stream: Tensor) -> Tensor:
        """`hidden` `(B, L, inputs)` added to `stream` `(B, L, width)`."""
        out: Tensor = self.LayerNorm(self.dropout(self.dense(hidden)) + stream)
        return out


class Layer(nn.Module):
    """Attention and a GELU MLP."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float, attn_drop: float) -> None:
        super().__init__()
        attention = {"self": SelfAttention(width, heads, attn_drop), "output": Output(width, width, dropout)}
        self.attention = nn.ModuleDict(attention)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, hidden)})
        self.output = Output(hidden, width, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, L, width)` to the same shape."""
        x = self.attention["output"](self.attention["self"](x), x)
        out: Tensor = self.output(functional.gelu(self.intermediate["dense"](x)), x)
        return out


class Embeddings(nn.Module):
    """Word, position and token-type embeddings, normalised."""

    def __init__(self, vocabulary: int, positions: int, width: int, dropout: float) -> None:
        super().__init__()
        self.word_embeddings = embedding_table(vocabulary, width)
        self.position_embeddings = embedding_table(positions, width)
        self.token_type_embeddings = embedding_table(2, width)
        self.LayerNorm = nn.LayerNorm(width, eps=EPS)
        self.dropout = nn.Dropout(dropout)

    def forward(self, ids: Tensor) -> Tensor:
        """int64 `(B, L)` to `(B, L, width)`."""
        words = self.word_embeddings(ids)
        # The two token types are a leftover of BERT's sentence pairs: row 0 is added everywhere, row 1 never.
        fixed = self.position_embeddings.weight[: ids.shape[1]] + self.token_type_embeddings.weight[0]
        out: Tensor = self.dropout(self.LayerNorm(words + fixed))
        return out


class ImageBertModel(nn.Module):
    """BERT with a head over the image codes, which the release stores inside it.

    Args:
        vocabulary: Rows of the input embedding.
        codebook_size: Outputs of the head.
        positions: Length of the sequence.
        hidden_size: Width.
        num_hidden_layers: Layers.
        num_attention_heads: Heads.
        intermediate_size: Hidden width of the MLPs.
        dropout: Dropout in training on embeddings and on both branches of a layer.
        attn_drop: Dropout in training on attention weights.
    """

    def __init__(
        self,
        *,
        vocabulary: int,
        codebook_size: int,
        positions: int,
        hidden_size: int,
        num_hidden_layers: int,
        num_attention_heads: int,
        intermediate_size: int,
        dropout: float,
        attn_drop: float,
    ) -> None:
        super().__init__()
        sizes = (hidden_size, num_attention_heads, intermediate_size, dropout, attn_drop)
        layers = nn.ModuleList(Layer(*sizes) for _ in range(num_hidden_layers))
        self.embeddings = Embeddings(vocabulary, positions, hidden_size, dropout)
        self.encoder = nn.ModuleDict({"layer": layers})
        self.lm_head = nn.Linear(hidden_size, codebook_size)
        self.apply(initialise_linear)

    def forward(self, ids: Tensor) -> Tensor:
        """int64 `(B, L)` to logits `(B, L, codebook_size)`."""
        hidden = self.embeddings(ids)
        for layer in cast(nn.ModuleList, self.encoder["layer"]):
            hidden = layer(hidden)
        logits: Tensor = self.lm_head(hidden)
        return logits
