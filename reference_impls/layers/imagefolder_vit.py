"""The vision transformers of ImageFolder (arXiv 2410.01756), under the release's key names."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.precision import at_least_float32
from tokenmark.contracts import MethodError

__all__ = ["FolderDecoder", "FolderEncoder", "FolderSize", "PlainViT"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderSize:
    """Sizes that encoder and decoder share."""

    image_size: int
    patch_size: int
    width: int
    layers: int
    heads: int
    latent_grid: int
    """Side of the square that the latent tokens of one branch form."""

    def __post_init__(self) -> None:
        if self.image_size % self.patch_size:
            raise MethodError(f"image_size {self.image_size} is not a multiple of the patch size {self.patch_size}")

    @property
    def grid(self) -> int:
        """Patches along a side."""
        return self.image_size // self.patch_size


def _tokens(count: int, width: int) -> nn.Parameter:
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(1, count, width), std=width**-0.5))


class PlainViT(nn.Module):
    """The parts of timm's vision transformer with layer scale, put together elsewhere.

    The release starts from DINOv2's weights; the initial values here are for starting from nothing.

    Args:
        size: Sizes.
        patches: Whether it has a patch embedding.
    """

    def __init__(self, size: FolderSize, *, patches: bool = True) -> None:
        super().__init__()
        norm: Any = partial(nn.LayerNorm, eps=1e-6)
        self.cls_token = _tokens(1, size.width)
        self.pos_embed = _tokens(size.grid**2 + 1, size.width)
        if patches:
            projection = nn.Conv2d(3, size.width, size.patch_size, stride=size.patch_size)
            self.patch_embed = nn.ModuleDict({"proj": projection})
        self.blocks = nn.Sequential(
            *(
                Block(size.width, size.heads, qkv_bias=True, init_values=1.0, norm_layer=norm)
                for _ in range(size.layers)
            )
        )
        self.norm = nn.LayerNorm(size.width, eps=1e-6)

    def positions(self, side: int) -> Tensor:
        """The position table, the class token's first, resampled to a grid of `side * side`: `(1, 1 + side**2, width)`.

        Bicubic and antialiased, as timm does it.
        """
        own = round((self.pos_embed.shape[1] - 1) ** 0.5)
        if side == own:
            return self.pos_embed
        table = at_least_float32(self.pos_embed[:, 1:]).transpose(1, 2).unflatten(2, (own, own))
        table = functional.interpolate(table, size=(side, side), mode="bicubic", antialias=True)
        return torch.cat([self.pos_embed[:, :1], table.flatten(2).transpose(1, 2).to(self.pos_embed.dtype)], dim=1)

    def placed(self, tokens: Tensor, side: int) -> Tensor:
        """Tokens `(B, side*side, width)` behind a class token, with their positions: one token more."""
        start = self.cls_token.expand(len(tokens), -1, -1).to(tokens.dtype)
        return torch.cat([start, tokens], dim=1) + self.positions(side)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens `(B, L, width)` through all blocks and the last norm."""
        out: Tensor = self.norm(self.blocks(tokens))
        return out


class FolderEncoder(nn.Module):
    """Patches and latent tokens through one transformer; the latent tokens come out (section 3.1).

    Args:
        size: Sizes.
        branches: Number of branches, P.
    """

    lvl1LC: Tensor  # noqa: N815  the release's name

    def __init__(self, size: FolderSize, branches: int) -> None:
        super().__init__()
        self.size, self.branches = size, branches
        count = size.latent_grid**2
        self.latent_tokens = _tokens(branches * count, size.width)
        self.model = PlainViT(size)
        self.lvl_embed = nn.Embedding(1 + branches, size.width)
        # 0 for the image, then the branch; the release's constant, which is in its checkpoints.
        kinds = [torch.zeros(size.grid**2 + 1), *(torch.full((count,), branch + 1.0) for branch in range(branches))]
        self.register_buffer("lvl1LC", torch.cat(kinds).long().unsqueeze(0))

    def forward(self, images: Tensor) -> Tensor:
        """Images `(B, 3, S, S)` to latents `(B, P*L, width)`, branch after branch."""
        patches = self.model.patch_embed["proj"](images).flatten(2).transpose(1, 2)
        # Latent tokens get the patches' positions, resampled to their own square.
        places = self.model.positions(self.size.latent_grid)[:, 1:].repeat(1, self.branches, 1)
        latents = (self.latent_tokens + places).expand(len(images), -1, -1).to(patches.dtype)
        tokens = torch.cat([self.model.placed(patches, self.size.grid), latents], dim=1)
        out: Tensor = self.model(tokens + self.lvl_embed(self.lvl1LC))
        return out[:, 1 + patches.shape[1] :]


class FolderDecoder(nn.Module):
    """Mask tokens and latents through one transformer; the mask tokens become pixels.

    Latents stand behind a class token of their own, which the release leaves in (the encoder has none there).
    """

    lvl1LC: Tensor  # noqa: N815  the release's name

    def __init__(self, size: FolderSize) -> None:
        super().__init__()
        self.size = size
        self.mask_token = _tokens(1, size.width)
        self.model = PlainViT(size, patches=False)
        self.lvl_embed = nn.Embedding(2, size.width)
        kinds = torch.cat([torch.zeros(size.grid**2 + 1), torch.ones(size.latent_grid**2 + 1)])
        self.register_buffer("lvl1LC", kinds.long().unsqueeze(0))
        self.to_pixel = nn.ModuleDict({"model": nn.Linear(size.width, 3 * size.patch_size**2)})

    def forward(self, latents: Tensor) -> Tensor:
        """Latents `(B, width, h, h)` to images `(B, 3, S, S)`, not clamped."""
        rows = self.model.placed(latents.flatten(2).transpose(1, 2), self.size.latent_grid)
        masks = self.mask_token.expand(len(rows), self.size.grid**2, -1).to(rows.dtype)
        tokens = torch.cat([self.model.placed(masks, self.size.grid), rows], dim=1)
        patches = self.model(tokens + self.lvl_embed(self.lvl1LC))[:, 1 : 1 + masks.shape[1]]
        return self._pixels(self.to_pixel["model"](patches))

    def _pixels(self, channels: Tensor) -> Tensor:
        """`(B, g*g, C)` laid out as images: a channel index reads (row in the patch, column in the patch, colour)."""
        patch, grid = self.size.patch_size, self.size.grid
        cells = channels.reshape(len(channels), grid, grid, patch, patch, 3).permute(0, 5, 1, 3, 2, 4)
        return cells.reshape(len(channels), 3, grid * patch, grid * patch)
