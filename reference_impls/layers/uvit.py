"""U-ViT (arXiv 2209.12152): a pre-norm transformer with long skips, over class and image tokens.

TiTok's generator for S-128 is this network (`UViTBert`, modeling/maskgit.py of bytedance/1d-tokenizer).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.bert import embedding_table, initialise_linear

__all__ = ["UViT"]


class Attention(nn.Module):
    """Multi-head self-attention; queries, keys and values have no bias."""

    def __init__(self, width: int, heads: int, dropout: float, attn_drop: float) -> None:
        super().__init__()
        self.heads, self.attn_drop = heads, attn_drop
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)
        self.proj_drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, L, width)` to the same shape."""
        batch, length, width = x.shape
        query, key, value = (
            self.qkv(x).reshape(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        )
        dropout = self.attn_drop if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        out: Tensor = self.proj_drop(self.proj(mixed.transpose(1, 2).reshape(batch, length, width)))
        return out


class Mlp(nn.Module):
    """Linear, exact GELU, Linear."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, L, width)` to the same shape."""
        out: Tensor = self.drop(self.fc2(self.drop(functional.gelu(self.fc1(x)))))
        return out


class Block(nn.Module):
    """Pre-norm block; with `skip`, its first step joins the stream with an earlier block's output."""

    def __init__(
        self, width: int, heads: int, hidden: int, dropout: float, attn_drop: float, *, skip: bool = False
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads, dropout, attn_drop)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, hidden, dropout)
        self.skip_linear = nn.Linear(2 * width, width) if skip else None

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """`(B, L, width)` to the same shape."""
        if self.skip_linear is not None and skip is not None:
            # Back to the stream's number type, which under autocast a linear map leaves.
            x = self.skip_linear(torch.cat([x, skip], dim=-1)).to(x.dtype)
        x = x + self.attn(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class UViT(nn.Module):
    """U-ViT with a head over the image codes; arguments as for `ImageBertModel`.

    `num_hidden_layers // 2` blocks go in, one is in the middle, and as many come out, each with a skip from its
    counterpart.
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
        half = num_hidden_layers // 2
        self.pos_embed = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, positions, hidden_size), std=0.02))
        self.embeddings = embedding_table(vocabulary, hidden_size)
        self.in_blocks = nn.ModuleList(Block(*sizes) for _ in range(half))
        self.mid_block = Block(*sizes)
        self.out_blocks = nn.ModuleList(Block(*sizes, skip=True) for _ in range(half))
        self.norm = nn.LayerNorm(hidden_size)
        self.lm_head = nn.Linear(hidden_size, codebook_size)
        self.drop = nn.Dropout(dropout)
        self.apply(initialise_linear)

    def forward(self, ids: Tensor) -> Tensor:
        """int64 `(B, L)` to logits `(B, L, codebook_size)`."""
        hidden = self.drop(self.embeddings(ids) + self.pos_embed[:, : ids.shape[1]])
        skips: list[Tensor] = []
        for block in self.in_blocks:
            hidden = block(hidden)
            skips.append(hidden)
        hidden = self.mid_block(hidden)
        for block in self.out_blocks:
            hidden = block(hidden, skips.pop())
        logits: Tensor = self.lm_head(self.norm(hidden))
        return logits
