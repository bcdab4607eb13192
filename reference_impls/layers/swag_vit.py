"""SWAG's vision transformer, with its own keys.

Singh et al., "Revisiting Weakly Supervised Pre-Training of Visual Perception Models", CVPR 2022.
"""

from collections import OrderedDict
from typing import cast

import torch
from torch import Tensor, nn

__all__ = ["SIZES", "SwagVit", "swag_vit"]

SIZES: dict[str, dict[str, int]] = {
    "vit_b16_in1k": {"img_size": 384, "patch_size": 16, "embed_dim": 768, "depth": 12, "num_heads": 12},
    "vit_l16_in1k": {"img_size": 512, "patch_size": 16, "embed_dim": 1024, "depth": 24, "num_heads": 16},
    "vit_h14_in1k": {"img_size": 518, "patch_size": 14, "embed_dim": 1280, "depth": 32, "num_heads": 16},
}
"""The released classifiers, which were fine-tuned on ImageNet-1k at these sizes."""


class SwagBlock(nn.Module):
    """A pre-norm block: torch's attention, and an MLP with GELU."""

    def __init__(self, width: int, heads: int, hidden: int, eps: float) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=eps)
        self.self_attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_2 = nn.LayerNorm(width, eps=eps)
        self.mlp = nn.Sequential(
            OrderedDict(linear_1=nn.Linear(width, hidden), gelu=nn.GELU(), linear_2=nn.Linear(hidden, width))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Tokens `(B, N, C)` to tokens."""
        normed = self.ln_1(x)
        x = x + self.self_attention(normed, normed, normed, need_weights=False)[0]
        return cast("Tensor", x + self.mlp(self.ln_2(x)))


class SwagEncoder(nn.Module):
    """Positions, blocks and the last norm."""

    def __init__(self, tokens: int, width: int, depth: int, heads: int, hidden: int, eps: float) -> None:
        super().__init__()
        self.pos_embedding = nn.Parameter(0.02 * torch.randn(tokens, 1, width))
        self.layers = nn.Sequential(
            OrderedDict((f"layer_{block}", SwagBlock(width, heads, hidden, eps)) for block in range(depth))
        )
        self.ln = nn.LayerNorm(width, eps=eps)


class SwagVit(nn.Module):
    """Images `(B, 3, img_size, img_size)` to logits `(B, num_classes)` of the class token."""

    global_pool = "token"
    num_prefix_tokens = 1

    def __init__(
        self,
        img_size: int,
        patch_size: int,
        embed_dim: int,
        depth: int,
        num_heads: int,
        *,
        mlp_ratio: float = 4.0,
        num_classes: int = 1000,
        norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.img_size = img_size
        side = img_size // patch_size
        self.grid_size = (side, side)
        self.class_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.conv_proj = nn.Conv2d(3, embed_dim, patch_size, patch_size)
        hidden = int(mlp_ratio * embed_dim)
        self.encoder = SwagEncoder(side * side + 1, embed_dim, depth, num_heads, hidden, norm_eps)
        self.head = nn.Sequential(
            OrderedDict(layers=nn.Sequential(OrderedDict(head=nn.Linear(embed_dim, num_classes))))
        )

    @property
    def norm(self) -> nn.Module:
        """The last norm, as timm calls it."""
        return self.encoder.ln

    def embed(self, images: Tensor) -> Tensor:
        """The class token and the patches with their positions, `(B, 1 + patches, C)`."""
        patches = self.conv_proj(images).flatten(2).transpose(1, 2)
        tokens = torch.cat((self.class_token.expand(len(images), -1, -1), patches), dim=1)
        return tokens + self.encoder.pos_embedding.transpose(0, 1)

    def classify(self, x: Tensor) -> Tensor:
        """Logits of the last block's tokens."""
        return cast("Tensor", self.head(self.encoder.ln(x)[:, 0]))

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(B, num_classes)`."""
        return self.classify(self.encoder.layers(self.embed(images)))


def swag_vit(name: str) -> SwagVit:
    """One of the released classifiers `SIZES`, without its weights."""
    return SwagVit(**SIZES[name])
