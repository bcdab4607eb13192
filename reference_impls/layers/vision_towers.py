"""The image halves of CLIP and SigLIP, as far as tokenizers read them: features of every patch, no pooling."""

import torch
from timm.layers.activations import GELUTanh
from timm.layers.mlp import Mlp
from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.titok_vit import Block, VitSize

__all__ = ["SIGLIP", "ClipTower", "SiglipTower", "enlarged_positions", "quick_gelu"]

SIGLIP = ((r"\.vision_model\.(?:embeddings\.|encoder\.)?", "."),)
"""A transformers key of a `SiglipTower` to ours."""


def quick_gelu(x: Tensor) -> Tensor:
    """CLIP's approximation of GELU."""
    return x * torch.sigmoid(1.702 * x)


def enlarged_positions(table: Tensor, side: int) -> Tensor:
    """A table `(1 + n*n, C)` of positions, the class token's first, for a grid of `side * side`: `(1 + side**2, C)`.

    The way of DINO and BEiT: bicubic, by a factor that is a tenth of a patch too large, and not by the size, which
    moves the sampling points a little.
    """
    own = round((len(table) - 1) ** 0.5)
    if own == side:
        return table
    grid = table[1:].T.reshape(1, -1, own, own)
    factor = (side + 0.1) / own
    grid = functional.interpolate(grid, scale_factor=(factor, factor), mode="bicubic")
    return torch.cat([table[:1], grid.flatten(2)[0].T])


class ClipTower(nn.Module):
    """OpenAI's CLIP vision transformer (arXiv 2103.00020), under its key names.

    Args:
        size: Sizes of the transformer.
        image_size: Side of the images for which its positions were trained, in pixels.
    """

    def __init__(self, size: VitSize, image_size: int) -> None:
        super().__init__()
        self.class_embedding = nn.Parameter(torch.randn(size.width) * size.width**-0.5)
        patches = (image_size // size.patch_size) ** 2
        self.positional_embedding = nn.Parameter(torch.randn(patches + 1, size.width) * size.width**-0.5)
        self.conv1 = nn.Conv2d(3, size.width, size.patch_size, stride=size.patch_size, bias=False)
        self.ln_pre = nn.LayerNorm(size.width)
        self.transformer = nn.ModuleDict(
            {"resblocks": nn.Sequential(*(Block(size, quick_gelu) for _ in range(size.layers)))}
        )
        self.ln_post = nn.LayerNorm(size.width)

    def forward(self, images: Tensor) -> Tensor:
        """Images `(B, 3, S, S)` to features of their patches `(B, n*n, width)`; other sizes than its own will do."""
        patches = self.conv1(images)
        positions = enlarged_positions(self.positional_embedding, patches.shape[-1])
        start = self.class_embedding.expand(len(images), 1, -1).to(patches.dtype)
        hidden = self.ln_pre(torch.cat([start, patches.flatten(2).transpose(1, 2)], dim=1) + positions)
        out: Tensor = self.ln_post(self.transformer["resblocks"](hidden)[:, 1:])
        return out


class SiglipAttention(nn.Module):
    """Self-attention with a projection each for queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.k_proj, self.v_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.q_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, L, width)` to the same shape."""
        query, key, value = (
            projection(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out


class SiglipBlock(nn.Module):
    """Pre-norm residual block."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.self_attn = SiglipAttention(width, heads)
        self.layer_norm1 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = _siglip_mlp(width, hidden)
        self.layer_norm2 = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, L, width)` to the same shape."""
        x = x + self.self_attn(self.layer_norm1(x))
        out: Tensor = x + self.mlp(self.layer_norm2(x))
        return out


def _siglip_mlp(width: int, hidden: int) -> nn.Module:
    mlp: nn.Module = Mlp(width, hidden, act_layer=GELUTanh)
    return mlp


class SiglipHead(nn.Module):
    """The parameters of the pooling head: nothing here pools, but checkpoints have them."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.probe = nn.Parameter(torch.zeros(1, 1, width))
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.layernorm = nn.LayerNorm(width, eps=1e-6)
        self.mlp = _siglip_mlp(width, hidden)


class SiglipTower(nn.Module):
    """SigLIP's vision transformer (arXiv 2303.15343); `SIGLIP` renames the keys of transformers before its version 5.

    Its features are those before the last block. That block, the last norm and the pooling head are in checkpoints
    of the whole tower, and so they are here.

    Args:
        width: Channels.
        hidden: Channels inside an MLP.
        layers: Number of blocks.
        heads: Number of heads.
        patch_size: Side of a patch, in pixels.
        image_size: Side of the images, in pixels; what is left of it after whole patches is not seen.
    """

    def __init__(self, *, width: int, hidden: int, layers: int, heads: int, patch_size: int, image_size: int) -> None:
        super().__init__()
        patches = (image_size // patch_size) ** 2
        self.patch_embedding = nn.Conv2d(3, width, patch_size, stride=patch_size)
        self.position_embedding = nn.Embedding(patches, width)
        self.layers = nn.Sequential(*(SiglipBlock(width, heads, hidden) for _ in range(layers)))
        self.post_layernorm = nn.LayerNorm(width, eps=1e-6)
        self.head = SiglipHead(width, heads, hidden)

    def forward(self, images: Tensor) -> Tensor:
        """Images `(B, 3, S, S)` to features of their patches `(B, n*n, width)`."""
        patches = self.patch_embedding(images).flatten(2).transpose(1, 2)
        out: Tensor = self.layers[:-1](patches + self.position_embedding.weight)
        return out
