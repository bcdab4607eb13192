"""MaskBit's transformer over groups of bits (arXiv 2409.16211, section 4), under the release's key names."""

from typing import cast

import torch
from torch import Tensor, nn

from reference_impls.layers.bert import embedding_table, initialise_linear
from reference_impls.layers.binary import bits_of_codes, codes_of_bits
from reference_impls.layers.titok_vit import Attention

__all__ = ["BitTransformer", "codes_of_groups", "groups_of_codes"]

EPS = 1e-12


def groups_of_codes(codes: Tensor, bits: int, groups: int) -> Tensor:
    """The `groups` groups `(..., G)` of codes `(...)` of `bits` bits, int64: the least significant bits first."""
    return codes_of_bits(bits_of_codes(codes, bits).unflatten(-1, (groups, -1)))


def codes_of_groups(values: Tensor, bits: int) -> Tensor:
    """Codes `(...)` of `bits` bits of their groups `(..., G)`: the inverse of `groups_of_codes`."""
    return codes_of_bits(bits_of_codes(values, bits // values.shape[-1]).flatten(-2))


class AttentionStep(nn.Module):
    """Self-attention, then the norm of the sum: post-norm, as in BERT."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.mha = Attention(width, heads)
        self.norm = nn.LayerNorm(width, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, L, width)` to the same shape."""
        out: Tensor = self.norm(self.mha(x) + x)
        return out


class FeedForward(nn.Module):
    """A GELU MLP, then the norm of the sum."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.norm = nn.LayerNorm(width, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, L, width)` to the same shape."""
        out: Tensor = self.norm(self.net(x) + x)
        return out


class BitTransformer(nn.Module):
    """Predicts masked groups of bits; it has no table of tokens, its input is the bits themselves.

    A group is masked on its own: the others of its token may be known already.

    Args:
        token_size: Bits of a token, K.
        codebook_splits: Groups of a token, G, a divisor of K; each is predicted as one of C = 2 ** (K / G) values.
        image_seq_len: Tokens of an image, L.
        nclass: Number of classes; the dropped one is a row behind them.
        hidden_dim: Width.
        depth: Blocks.
        heads: Heads, a divisor of the width.
        mlp_dim: Hidden width of the MLPs.
    """

    mask: int
    """The number that stands for a masked group, C: the first that is no value of one."""

    def __init__(
        self,
        *,
        token_size: int,
        codebook_splits: int,
        image_seq_len: int,
        nclass: int,
        hidden_dim: int,
        depth: int,
        heads: int,
        mlp_dim: int,
    ) -> None:
        super().__init__()
        self.group_bits = token_size // codebook_splits
        self.mask = 2**self.group_bits
        self.class_emb = embedding_table(nclass + 1, hidden_dim)
        self.input_proj = nn.Linear(token_size, hidden_dim)
        self.pos_emb = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, image_seq_len + 1, hidden_dim), std=0.02))
        self.first_layer = nn.Sequential(nn.LayerNorm(hidden_dim, eps=EPS))
        blocks = (
            nn.Sequential(AttentionStep(hidden_dim, heads), FeedForward(hidden_dim, mlp_dim)) for _ in range(depth)
        )
        self.transformer = nn.ModuleDict({"layers": nn.ModuleList(blocks)})
        self.last_layer = nn.Sequential(nn.Linear(hidden_dim, hidden_dim), nn.GELU(), nn.LayerNorm(hidden_dim, eps=EPS))
        self.prediction_layer = nn.Linear(hidden_dim, codebook_splits * self.mask)
        self.apply(initialise_linear)

    def signs(self, groups: Tensor) -> Tensor:
        """The network's input `(B, L, K)`: +1 and -1 for the bits of `groups` `(B, L, G)`, 0 for masked ones'."""
        signs = 2 * bits_of_codes(groups, self.group_bits) - 1
        return signs.masked_fill((groups == self.mask)[..., None], 0).flatten(2).to(self.input_proj.weight.dtype)

    def forward(self, groups: Tensor, classes: Tensor) -> Tensor:
        """Logits `(B, L, G, C)` of int64 `groups` `(B, L, G)`, where C is the mask, for `classes` `(B,)`."""
        # The class stands behind the image. Its own output is not asked for.
        x = torch.cat([self.input_proj(self.signs(groups)), self.class_emb(classes)[:, None]], dim=1)
        x = self.first_layer(x + self.pos_emb)
        for block in cast(nn.ModuleList, self.transformer["layers"]):
            x = block(x)
        logits: Tensor = self.prediction_layer(self.last_layer(x[:, :-1]))
        return logits.reshape(*groups.shape, self.mask)
