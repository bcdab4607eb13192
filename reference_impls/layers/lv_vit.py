"""LV-ViT (Jiang et al., "All Tokens Matter: Token Labeling for Training Better Vision Transformers", NeurIPS 2021).

A vision transformer with a convolutional stem, branches divided by a constant, and a second classifier for patches.
"""

from typing import cast

import torch
from timm.layers.mlp import Mlp
from timm.models.vision_transformer import Attention  # type: ignore[attr-defined]
from torch import Tensor, nn

__all__ = ["LvBlock", "LvStem", "LvVit"]


class LvStem(nn.Module):
    """Three convolutions at half the resolution, then one patch projection over what they give."""

    def __init__(self, img_size: int, patch_size: int, width: int, embed_dim: int) -> None:
        super().__init__()
        self.grid_size = (img_size // patch_size, img_size // patch_size)
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.proj = nn.Conv2d(width, embed_dim, patch_size // 2, stride=patch_size // 2)

    def forward(self, images: Tensor) -> Tensor:
        """Images `(B, 3, H, W)` to patches `(B, H W / patch_size ** 2, embed_dim)`."""
        x = torch.relu(self.bn1(self.conv1(images)))
        x = torch.relu(self.bn2(self.conv2(x)))
        x = torch.relu(self.bn3(self.conv3(x)))
        return cast("Tensor", self.proj(x)).flatten(2).transpose(1, 2)


class LvBlock(nn.Module):
    """A pre-norm block whose two residual branches are divided by `skip_lam`."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, skip_lam: float) -> None:
        super().__init__()
        self.skip_lam = skip_lam
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, num_heads=heads, qkv_bias=False)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens `(B, N, C)` to tokens."""
        x = x + self.attn(self.norm1(x)) / self.skip_lam
        return cast("Tensor", x + self.mlp(self.norm2(x)) / self.skip_lam)


class LvVit(nn.Module):
    """LV-ViT as a classifier; the keys are those of the release. The defaults are LV-ViT-S."""

    def __init__(
        self,
        *,
        img_size: int = 224,
        patch_size: int = 16,
        embed_dim: int = 384,
        depth: int = 16,
        num_heads: int = 6,
        mlp_ratio: float = 3.0,
        skip_lam: float = 2.0,
        stem_width: int = 64,
        num_classes: int = 1000,
    ) -> None:
        super().__init__()
        self.image_shape = (3, img_size, img_size)
        self.patch_embed = LvStem(img_size, patch_size, stem_width, embed_dim)
        rows, columns = self.patch_embed.grid_size
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + rows * columns, embed_dim))
        self.blocks = nn.ModuleList(LvBlock(embed_dim, num_heads, mlp_ratio, skip_lam) for _ in range(depth))
        self.norm = nn.LayerNorm(embed_dim)
        self.head = nn.Linear(embed_dim, num_classes)
        self.aux_head = nn.Linear(embed_dim, num_classes)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def embed(self, images: Tensor) -> Tensor:
        """Images `(B, 3, H, W)` to the tokens `(B, N, C)` that enter the first block, the class token first."""
        patches = self.patch_embed(images)
        return torch.cat((self.cls_token.expand(patches.shape[0], -1, -1), patches), dim=1) + self.pos_embed

    def classify(self, x: Tensor) -> Tensor:
        """Logits of the last block's tokens: the class token's, and half of the greatest that any patch gives."""
        x = self.norm(x)
        return cast("Tensor", self.head(x[:, 0]) + 0.5 * self.aux_head(x[:, 1:]).amax(dim=1))

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(B, num_classes)` of normalised images `(B, 3, H, W)`."""
        x = self.embed(images)
        for block in self.blocks:
            x = block(x)
        return self.classify(x)
