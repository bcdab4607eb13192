"""ENAT's network: visible tokens are encoded alone, and masked ones look at them (arXiv 2411.06959)."""

from typing import NamedTuple

import torch
from timm.layers.activations import GELUTanh
from timm.layers.mlp import Mlp
from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.dit_blocks import LabelEmbedder, modulate, modulation

__all__ = ["EnatNetwork", "Stream"]

EPS = 1e-6


class Stream(NamedTuple):
    """What the network made of some tokens: the visible ones first, the masked ones after them."""

    positions: Tensor
    """int64 `(B, L)`: where in the image each of them lies."""
    features: Tensor
    """`(B, L, D)`, before the last norm."""
    visible: int
    """How many of them were visible, in every image."""


class TwoWayAttention(nn.Module):
    """Attention of tokens to conditions and to themselves, whose keys and values have projections of their own."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.ModuleDict({"A": nn.Linear(width, 2 * width), "B": nn.Linear(width, 2 * width)})
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, conditions: Tensor | None) -> Tensor:
        """Tokens `(B, N, D)` and conditions `(B, M, D)` to `(B, N, D)`."""
        pairs = self.kv["B"](x)
        if conditions is not None:
            pairs = torch.cat([self.kv["A"](conditions), pairs], dim=1)
        key, value = pairs.unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query = self.q(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        out: Tensor = self.proj(functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))
        return out


class EnatBlock(nn.Module):
    """DiT's block, whose attention also sees conditions, normed by the same norm and modulated apart."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=EPS, elementwise_affine=False)
        self.attn = TwoWayAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=EPS, elementwise_affine=False)
        self.mlp = Mlp(width, int(width * mlp_ratio), act_layer=GELUTanh)
        self.adaLN_modulation = modulation(width, 8)

    def forward(self, x: Tensor, label: Tensor, conditions: Tensor | None) -> Tensor:
        """Tokens `(B, N, D)`, the label's embedding `(B, D)` and conditions `(B, M, D)` to tokens."""
        shift1, scale1, shift_c, scale_c, gate1, shift2, scale2, gate2 = self.adaLN_modulation(label).chunk(8, dim=1)
        if conditions is not None:
            conditions = modulate(self.norm1(conditions), shift_c, scale_c)
        x = x + gate1.unsqueeze(1) * self.attn(modulate(self.norm1(x), shift1, scale1), conditions)
        out: Tensor = x + gate2.unsqueeze(1) * self.mlp(modulate(self.norm2(x), shift2, scale2))
        return out


class TokenEmbedder(nn.Module):
    """The sum of a token's and its position's embedding, normed."""

    def __init__(self, tokens: int, positions: int, width: int) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(tokens, width)
        self.position_embeddings = nn.Embedding(positions, width)
        self.LayerNorm = nn.LayerNorm(width, eps=EPS)
        for table in (self.word_embeddings, self.position_embeddings):
            nn.init.trunc_normal_(table.weight, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        """int64 `(B, L)` to `(B, L, D)`."""
        out: Tensor = self.LayerNorm(self.word_embeddings(ids) + self.position_embeddings.weight)
        return out


class Reprojection(nn.Module):
    """What stands for tokens that an earlier step encoded."""

    def __init__(self, width: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.mlp = Mlp(width, int(width * mlp_ratio), act_layer=GELUTanh)

    def forward(self, features: Tensor) -> Tensor:
        """`(B, N, D)` to the same shape."""
        out: Tensor = features + self.mlp(self.norm(features))
        return out


class TokenHead(nn.Module):
    """Linear, GELU, norm, and the likeness to every token's embedding."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1, 1, tokens))
        self.fc = nn.Linear(width, width)
        self.ln = nn.LayerNorm(width)

    def forward(self, features: Tensor, embeddings: Tensor) -> Tensor:
        """Features `(B, N, D)` and embeddings `(K + 1, D)` to logits `(B, N, K + 1)`."""
        out: Tensor = self.ln(functional.gelu(self.fc(features))) @ embeddings.t() + self.bias
        return out


class EnatNetwork(nn.Module):
    """Tokens, some of them masked, to logits over codes.

    Args:
        codes: Number of codes, K; token K is the mask.
        positions: Tokens of an image, L.
        classes: Number of classes; class `classes` is the dropped one.
        width: Channels, D.
        heads: Attention heads.
        encoder_blocks: Blocks through which visible tokens go.
        decoder_blocks: Blocks through which masked tokens go afterwards.
        mlp_ratio: Hidden channels of an MLP over `width`.
    """

    def __init__(
        self,
        *,
        codes: int,
        positions: int,
        classes: int,
        width: int,
        heads: int,
        encoder_blocks: int,
        decoder_blocks: int,
        mlp_ratio: float,
    ) -> None:
        super().__init__()
        self.codes, self.positions, self.encoder_blocks = codes, positions, encoder_blocks
        self.x_embedder = TokenEmbedder(codes + 1, positions, width)
        self.y_embedder = LabelEmbedder(classes, width)
        self.prev_embedder = Mlp(width, int(width * mlp_ratio))  # in the checkpoints, and used by nothing
        self.prev_proj = Reprojection(width, mlp_ratio)
        self.blocks = nn.ModuleList(EnatBlock(width, heads, mlp_ratio) for _ in range(encoder_blocks + decoder_blocks))
        self.norm = nn.LayerNorm(width)
        self.mlm_layer = TokenHead(codes + 1, width)

    def streamed(self, ids: Tensor, labels: Tensor, masked: int, previous: Stream | None = None) -> Stream:
        """Features of ids `(B, L)`, of which `masked` are the mask token in every image, for classes `(B,)`.

        With `previous`, of an earlier step whose visible tokens are visible still, only the newly visible ones are
        encoded.
        """
        known = 0 if previous is None else previous.visible
        fresh = self.positions - masked - known
        rank = (ids == self.codes).long()
        if previous is not None:
            rank = rank.scatter(1, previous.positions[:, :known], 2)
        order = rank.argsort(dim=1, stable=True)[:, : fresh + masked]
        label, embedded = self.y_embedder(labels), _taken(self.x_embedder(ids), order)
        # Laid out alone, so that blocks which are compiled meet one layout at all steps.
        seen, hidden = (part.contiguous() for part in embedded.split([fresh, masked], dim=1))
        before = None
        if previous is not None and known:
            before = self.prev_proj(previous.features[:, :known].contiguous())
            order = torch.cat([previous.positions[:, :known], order], dim=1)
        if fresh:
            for block in self.blocks[: self.encoder_blocks]:
                seen = block(seen, label, before)
        visible = seen if before is None else torch.cat([before, seen], dim=1)
        for block in self.blocks[self.encoder_blocks :]:
            hidden = block(hidden, label, visible if known + fresh else None)
        return Stream(order, torch.cat([visible, hidden], dim=1), known + fresh)

    def logits(self, features: Tensor) -> Tensor:
        """Logits `(B, N, K)` of features `(B, N, D)`; the mask itself is never predicted."""
        words = self.x_embedder.word_embeddings.weight
        out: Tensor = self.mlm_layer(self.norm(features), words)
        return out[..., : self.codes]


def _taken(x: Tensor, positions: Tensor) -> Tensor:
    """Tokens of `x` `(B, L, D)` at `positions` `(B, N)`."""
    return x.gather(1, positions[..., None].expand(-1, -1, x.shape[2]))
