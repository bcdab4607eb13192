"""Halton-MaskGIT's transformer over a grid of codes (arXiv 2503.17076, section 4), under the release's key names."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.dit_blocks import modulate, modulation

__all__ = ["HaltonTransformer"]

EPS = 1e-5
MULTIPLE = 256
"""Of what the MLP's hidden width is a multiple."""


class BiasedRMSNorm(nn.RMSNorm):
    """RMSNorm that also adds a bias."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=EPS)
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """`(..., width)` to the same shape."""
        return super().forward(x) + self.bias


class Attention(nn.Module):
    """Self-attention without biases.

    Queries and keys are divided by their root mean square over all heads together, before they are split. Where
    `heads` does not divide `width`, heads are narrower, and so is what they give together.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        inner = width // heads * heads
        self.wq, self.wk, self.wv = (nn.Linear(width, inner, bias=False) for _ in range(3))
        self.wo = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, L, width)` to the same shape."""
        query, key, value = self.wq(x), self.wk(x), self.wv(x)
        query, key = (functional.rms_norm(part, part.shape[-1:], eps=EPS) for part in (query, key))
        query, key, value = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (query, key, value))
        mixed = functional.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.wo(mixed.transpose(1, 2).flatten(2))
        return out


class SwiGlu(nn.Module):
    """SwiGLU of two thirds of the given width, rounded up."""

    def __init__(self, width: int, mlp_dim: int) -> None:
        super().__init__()
        hidden = -(-(2 * mlp_dim // 3) // MULTIPLE) * MULTIPLE
        self.w1, self.w2 = nn.Linear(width, hidden, bias=False), nn.Linear(hidden, width, bias=False)
        self.w3 = nn.Linear(width, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, L, width)` to the same shape."""
        out: Tensor = self.w2(functional.silu(self.w1(x)) * self.w3(x))
        return out


class Block(nn.Module):
    """Pre-norm residual block, whose norms and residuals the class modulates."""

    def __init__(self, width: int, heads: int, mlp_dim: int) -> None:
        super().__init__()
        self.mlp = modulation(width, 6)
        self.ln1 = nn.RMSNorm(width, eps=EPS)
        self.attn = Attention(width, heads)
        self.ln2 = nn.RMSNorm(width, eps=EPS)
        self.ff = SwiGlu(width, mlp_dim)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Tokens `(B, L, D)` and conditions `(B, D)` to tokens."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.mlp(condition).chunk(6, dim=1)
        x = x + gate1.unsqueeze(1) * self.attn(modulate(self.ln1(x), shift1, scale1))
        out: Tensor = x + gate2.unsqueeze(1) * self.ff(modulate(self.ln2(x), shift2, scale2))
        return out


class ModulatedNorm(nn.Module):
    """The norm before the head, shifted and scaled by the class."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm_final = BiasedRMSNorm(width)
        self.mlp = modulation(width, 2)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Tokens `(B, L, D)` and conditions `(B, D)` to tokens."""
        shift, scale = self.mlp(condition).chunk(2, dim=1)
        return modulate(self.norm_final(x), shift, scale)


class Layers(nn.Module):
    """Blocks, under the name that the release gives their list."""

    def __init__(self, width: int, depth: int, heads: int, mlp_dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(width, heads, mlp_dim) for _ in range(depth))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Tokens `(B, L, D)` and conditions `(B, D)` to tokens."""
        for layer in self.layers:
            x = layer(x, condition)
        return x


class HaltonTransformer(nn.Module):
    """Codes and a class to logits of all codes.

    Args:
        input_size: Codes of a side, n.
        hidden_dim: Width, D.
        codebook_size: Number of codes, K; the mask is code K, which the tied head may answer, too.
        depth: Number of blocks.
        heads: Attention heads of each.
        mlp_dim: Width of the MLP before two thirds are taken of it.
        nclass: Number of classes; class `nclass` is the dropped one.
        register: Learned tokens behind the codes that only attention uses.
    """

    def __init__(
        self,
        *,
        input_size: int,
        hidden_dim: int,
        codebook_size: int,
        depth: int,
        heads: int,
        mlp_dim: int,
        nclass: int,
        register: int = 1,
    ) -> None:
        super().__init__()
        self.cls_emb = nn.Embedding(nclass + 1, hidden_dim)
        self.tok_emb = nn.Embedding(codebook_size + 1, hidden_dim)
        self.pos_emb = nn.Embedding(input_size**2, hidden_dim)
        self.transformer = Layers(hidden_dim, depth, heads, mlp_dim)
        self.last_norm = ModulatedNorm(hidden_dim)
        self.head = nn.Linear(hidden_dim, codebook_size + 1)
        self.reg_tokens = nn.Embedding(register, hidden_dim)
        for table in (self.cls_emb, self.tok_emb, self.pos_emb, self.reg_tokens):
            nn.init.normal_(table.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        self.head.weight = self.tok_emb.weight

    def forward(self, codes: Tensor, classes: Tensor) -> Tensor:
        """Logits `(B, n*n, K + 1)` of codes `(B, n*n)` for `classes` `(B,)`."""
        condition = self.cls_emb(classes)
        x = self.tok_emb(codes) + self.pos_emb.weight
        registers = self.reg_tokens.weight.expand(len(x), -1, -1)
        x = self.transformer(torch.cat([x, registers], dim=1), condition)[:, : codes.shape[1]]
        logits: Tensor = self.head(self.last_norm(x, condition))
        return logits
