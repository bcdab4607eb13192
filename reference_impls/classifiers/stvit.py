"""STViT (super tokens): attention runs among a few learned clusters of neighbouring pixels, and goes back to all."""

from collections.abc import Sequence

import torch
from timm.layers.helpers import to_2tuple
from torch import Tensor, nn
from torch.nn.functional import gelu, silu

from reference_impls.layers.image_checks import check_image_shape
from reference_impls.layers.super_tokens import SuperTokenAttention
from tokenmark.contracts import ClassifierMethod, Paper, Variant

__all__ = ["METHOD", "SuperTokenViT"]


class ChannelNorm(nn.Module):
    """Layer norm over the channels of a map."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Of a map `(B, C, H, W)` the normed one."""
        out: Tensor = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return out


class ResidualDepthwise(nn.Module):
    """A depthwise 3 x 3 convolution and its residual: where conditional positions come from."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, groups=width)

    def forward(self, x: Tensor) -> Tensor:
        """Of a map `(B, C, H, W)` the next."""
        out: Tensor = x + self.conv(x)
        return out


class ConvMlp(nn.Module):
    """The convolutional feed-forward: wider by 1 x 1, a depthwise residual, back by 1 x 1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(width, 4 * width, 1)
        self.conv = ResidualDepthwise(4 * width)
        self.fc2 = nn.Conv2d(4 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Of a map `(B, C, H, W)` what is added to it."""
        out: Tensor = self.fc2(self.conv(gelu(self.fc1(x))))
        return out


class SuperTokenBlock(nn.Module):
    """Positions by convolution, super token attention, convolutional feed-forward (section 3.1)."""

    def __init__(self, width: int, attention: SuperTokenAttention, *, scaled: bool) -> None:
        super().__init__()
        self.scaled = scaled
        if scaled:
            self.gamma_1 = nn.Parameter(torch.full((1, width, 1, 1), 1e-5))
            self.gamma_2 = nn.Parameter(torch.full((1, width, 1, 1), 1e-5))
        self.pos_embed = ResidualDepthwise(width)
        self.norm1 = ChannelNorm(width)
        self.attn = attention
        self.norm2 = nn.BatchNorm2d(width)
        self.mlp2 = ConvMlp(width)

    def forward(self, x: Tensor) -> Tensor:
        """Of a map `(B, C, H, W)` the next."""
        x = self.pos_embed(x)
        mixed = self.attn(self.norm1(x))
        x = x + (self.gamma_1 * mixed if self.scaled else mixed)
        fed = self.mlp2(self.norm2(x))
        out: Tensor = x + (self.gamma_2 * fed if self.scaled else fed)
        return out


class Stem(nn.Module):
    """Four convolutions down to a quarter of each side."""

    def __init__(self, width: int) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        channels = 3
        for out, stride in ((width // 2, 2), (width // 2, 1), (width, 2), (width, 1)):
            parts += [nn.Conv2d(channels, out, 3, stride, 1), nn.GELU(), nn.BatchNorm2d(out)]
            channels = out
        self.proj = nn.Sequential(*parts)

    def forward(self, images: Tensor) -> Tensor:
        """From `(B, 3, H, W)` to `(B, C, H / 4, W / 4)`, rounded up."""
        out: Tensor = self.proj(images)
        return out


class Halving(nn.Module):
    """From one stage to the next: half of each side, rounded up."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(nn.Conv2d(width, out, 3, 2, 1), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        """From `(B, C, H, W)` to `(B, C', H / 2, W / 2)`."""
        out: Tensor = self.proj(x)
        return out


class Stage(nn.Module):
    """Blocks of one resolution, and the halving behind all but the last."""

    def __init__(self, blocks: list[SuperTokenBlock], downsample: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """From maps `(B, C, H, W)` to those that enter the next stage."""
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.downsample(x)
        return out


class SuperTokenViT(nn.Module):
    """A hierarchical transformer of four stages, for images of one size, which may be any."""

    def __init__(
        self,
        embed_dim: Sequence[int],
        depths: Sequence[int],
        num_heads: Sequence[int],
        stoken_size: Sequence[int] = (8, 4, 1, 1),
        n_iter: Sequence[int] = (1, 1, 1, 1),
        layerscale: Sequence[bool] = (False, False, False, False),
        projection: int = 1024,
        num_classes: int = 1000,
        img_size: int | tuple[int, int] = 224,
        *,
        qkv_bias: bool = True,
    ) -> None:
        super().__init__()
        self.image_shape: tuple[int, int, int] = (3, *to_2tuple(img_size))
        self.patch_embed = Stem(embed_dim[0])
        self.layers = nn.ModuleList()
        after = (*embed_dim[1:], None)
        sizes = zip(embed_dim, after, depths, num_heads, stoken_size, n_iter, layerscale, strict=True)
        for width, out, depth, heads, cell, iterations, scaled in sizes:
            attentions = [SuperTokenAttention(width, cell, iterations, heads, qkv_bias=qkv_bias) for _ in range(depth)]
            blocks = [SuperTokenBlock(width, attention, scaled=scaled) for attention in attentions]
            self.layers.append(Stage(blocks, nn.Identity() if out is None else Halving(width, out)))
        self.proj = nn.Conv2d(embed_dim[-1], projection, 1)
        self.norm = nn.BatchNorm2d(projection)
        self.head = nn.Linear(projection, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """The mean of the projected map of normalised images `(B, 3, H, W)`: `(B, projection)`.

        Raises:
            MethodError: the images are not of the size that it was built for.
        """
        check_image_shape(images, self.image_shape)
        x = self.patch_embed(images)
        for layer in self.layers:
            x = layer(x)
        return silu(self.norm(self.proj(x))).mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(B, classes)` of normalised images `(B, 3, H, W)`."""
        out: Tensor = self.head(self.features(images))
        return out


METHOD = ClassifierMethod(
    id="stvit",
    title="STViT (super tokens)",
    idea="Pixels are softly clustered into super tokens around them, attention runs among these, and is mapped back.",
    acts="every block of the first two of 4 stages",
    paper=Paper(
        title="Vision Transformer with Super Token Sampling",
        authors="Huang, Zhou, Cao, He, Tan",
        year=2023,
        url="https://arxiv.org/abs/2211.11167",
    ),
    build=SuperTokenViT,
    variants={
        "stvit-small": Variant(
            config={"embed_dim": (64, 128, 320, 512), "depths": (3, 5, 9, 3), "num_heads": (1, 2, 5, 8)},
            note="hhb072/STViT, stvit_small",
        ),
        "stvit-base": Variant(
            config={
                "embed_dim": (96, 192, 384, 512),
                "depths": (4, 6, 14, 6),
                "num_heads": (2, 3, 6, 8),
                "layerscale": (False, False, True, True),
            },
            note="hhb072/STViT, stvit_base",
        ),
        "stvit-large": Variant(
            config={
                "embed_dim": (96, 192, 448, 640),
                "depths": (4, 7, 19, 8),
                "num_heads": (2, 3, 7, 10),
                "layerscale": (False, False, True, True),
            },
            note="hhb072/STViT, stvit_large",
        ),
    },
)
