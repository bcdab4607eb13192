"""LookupViT: a few compressed tokens do the work of a block, and the many tokens of the image are looked up and kept.

No release: read from the paper's abstract and accounts of it (arXiv 2407.12753). Compressed tokens are the grid of
patches, resized. In every block (a) they attend to the lookup tokens, (b) go through a plain transformer block, (c) the
lookup tokens read from them by the transposed attention of (a), with a value and an output map of their own, and (d) go
through a narrow MLP. One set of weights serves every number of compressed tokens (`side`, drawn per step in training).
What the paper leaves open, and what was taken:

- what is transposed: the logits, under a softmax of their own, so that a read is a mean; or the probabilities of (a),
  whose columns do not sum to 1 (`transposed`);
- the lookup MLP's hidden width: half the width (`lookup_ratio`), as a saving of a factor of two needs;
- what is pooled: the mean of the compressed tokens after a norm; then (c) and (d) of the last block would change
  nothing, and are not there. Or that of both kinds, summed (`pool`);
- pre-norm everywhere; no class token; learned positions, added before the grid is resized; bilinear with antialiasing.
"""

import math
from functools import partial
from typing import Any, Literal, cast

import torch
from timm.layers.mlp import Mlp
from timm.layers.patch_embed import PatchEmbed
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn.functional import interpolate

from reference_impls.layers.image_checks import check_image_shape, check_tiling
from reference_impls.layers.precision import at_least_float32
from tokenmark.contracts import ClassifierMethod, MethodError, Paper, Variant

__all__ = ["METHOD", "LookupVit", "block_macs"]

EPS = 1e-6
Transposed = Literal["logits", "probabilities"]


class LookupBlock(nn.Module):
    """One block; the last one may go without the way back to the lookup tokens."""

    def __init__(
        self, width: int, heads: int, lookup_ratio: float, transposed: Transposed, *, returns: bool = True
    ) -> None:
        super().__init__()
        norm: Any = partial(nn.LayerNorm, eps=EPS)
        self.heads, self.transposed, self.returns = heads, transposed, returns
        self.norm_query, self.norm_lookup = norm(width), norm(width)
        self.query, self.proj = nn.Linear(width, width), nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.block = Block(width, heads, qkv_bias=True, norm_layer=norm)
        if returns:
            self.norm_back, self.norm_mlp = norm(width), norm(width)
            self.value_back, self.proj_back = nn.Linear(width, width), nn.Linear(width, width)
            self.mlp = Mlp(width, int(width * lookup_ratio))

    def forward(self, compressed: Tensor, lookup: Tensor) -> tuple[Tensor, Tensor]:
        """Compressed `(B, M, C)` and lookup tokens `(B, N, C)` to both."""
        query = self._split(self.query(self.norm_query(compressed)))
        key, value = (self._split(part) for part in self.key_value(self.norm_lookup(lookup)).chunk(2, dim=-1))
        logits = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
        weights = logits.softmax(dim=-1)
        compressed = compressed + self.proj((weights.to(value.dtype) @ value).transpose(1, 2).flatten(2))
        compressed = self.block(compressed)
        if not self.returns:
            return compressed, lookup
        back = logits.transpose(-2, -1).softmax(dim=-1) if self.transposed == "logits" else weights.transpose(-2, -1)
        read = back.to(value.dtype) @ self._split(self.value_back(self.norm_back(compressed)))
        lookup = lookup + self.proj_back(read.transpose(1, 2).flatten(2))
        return compressed, lookup + self.mlp(self.norm_mlp(lookup))

    def _split(self, x: Tensor) -> Tensor:
        return cast("Tensor", x.unflatten(2, (self.heads, -1))).transpose(1, 2)


class LookupVit(nn.Module):
    """A classifier of lookup blocks; the defaults are of the size of ViT-B/16.

    Raises:
        MethodError: patches that do not tile the image, heads that do not divide the width, a grid of compressed tokens
            that is empty or finer than that of patches, or an option that does not exist.
    """

    def __init__(
        self,
        *,
        img_size: int = 224,
        patch_size: int = 16,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        side: int = 5,
        lookup_ratio: float = 0.5,
        transposed: Transposed = "logits",
        pool: Literal["compressed", "both"] = "compressed",
        num_classes: int = 1000,
    ) -> None:
        super().__init__()
        check_tiling(img_size, patch_size, embed_dim, num_heads)
        if transposed not in ("logits", "probabilities") or pool not in ("compressed", "both"):
            raise MethodError(
                f"transposed '{transposed}' must be logits or probabilities, pool '{pool}' compressed or both"
            )
        if lookup_ratio <= 0:
            raise MethodError(f"lookup_ratio {lookup_ratio} must lie above 0")
        self.grid, self.pool = img_size // patch_size, pool
        self.side = self._checked(side)
        self.image_shape = (3, img_size, img_size)
        self.patch_embed = PatchEmbed(img_size, patch_size, 3, embed_dim)
        self.pos_embed = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, self.grid**2, embed_dim), std=0.02))
        self.blocks = nn.ModuleList(
            LookupBlock(embed_dim, num_heads, lookup_ratio, transposed, returns=pool == "both" or index < depth - 1)
            for index in range(depth)
        )
        self.norm = nn.LayerNorm(embed_dim, eps=EPS)
        self.norm_lookup = nn.LayerNorm(embed_dim, eps=EPS) if pool == "both" else None
        self.head = nn.Linear(embed_dim, num_classes)

    def forward(self, images: Tensor, side: int | None = None) -> Tensor:
        """Logits `(B, classes)` of normalised images `(B, 3, H, W)`, with `side` x `side` compressed tokens.

        Raises:
            MethodError: the images are of another size, or the compressed tokens' grid cannot be.
        """
        check_image_shape(images, self.image_shape)
        lookup = self.patch_embed(images) + self.pos_embed
        compressed = self.compress(lookup, self.side if side is None else self._checked(side))
        for block in self.blocks:
            compressed, lookup = block(compressed, lookup)
        pooled = self.norm(compressed).mean(dim=1)
        if self.norm_lookup is not None:
            pooled = pooled + self.norm_lookup(lookup).mean(dim=1)
        return cast("Tensor", self.head(pooled))

    def compress(self, lookup: Tensor, side: int) -> Tensor:
        """Lookup tokens `(B, N, C)`, resized to `(B, side * side, C)`."""
        grid = at_least_float32(lookup.transpose(1, 2).unflatten(2, (self.grid, self.grid)))
        resized = interpolate(grid, size=(side, side), mode="bilinear", antialias=True)
        return resized.flatten(2).transpose(1, 2).to(lookup.dtype)

    def _checked(self, side: int) -> int:
        if not 1 <= side <= self.grid:
            raise MethodError(f"side {side} must be 1 to {self.grid}, the side of the grid of patches")
        return side


def block_macs(tokens: int, compressed: int, width: int, lookup_ratio: float) -> int:
    """MACs of one whole block, the way back included.

    For N lookup and M compressed tokens of width D, and r the lookup MLP's hidden width as a share of D:
    (3 + 2 r) N D^2 + 15 M D^2 + 3 M N D + 2 M^2 D.
    """
    lookup_linear = (3 * width + 2 * int(width * lookup_ratio)) * tokens * width
    pairs = (3 * compressed * tokens + 2 * compressed**2) * width
    return lookup_linear + 15 * compressed * width**2 + pairs


def _reading(tokens: int, lookup_ratio: float, transposed: Transposed = "logits") -> tuple[str, Variant]:
    """A reading under the name of what it chooses: compressed tokens, lookup MLP, what is transposed."""
    config = {"side": math.isqrt(tokens), "lookup_ratio": lookup_ratio, "transposed": transposed}
    return f"base-m{tokens}-r{lookup_ratio:g}-{transposed}", Variant(config=config, note="no released weights")


METHOD = ClassifierMethod(
    id="lookupvit",
    title="LookupViT",
    idea="Let a few compressed tokens do the work, and keep the image's many tokens beside them to be looked up.",
    acts="every block, two kinds of tokens",
    paper=Paper(
        title="LookupViT: Compressing visual information to a limited number of tokens",
        authors="Koner, Jain, Jain, Tresp, Paul",
        year=2024,
        url="https://arxiv.org/abs/2407.12753",
    ),
    build=LookupVit,
    variants=dict(
        [
            *(_reading(tokens, 0.5) for tokens in (9, 25, 49, 100)),
            _reading(9, 1.0),
            _reading(25, 0.5, "probabilities"),
        ]
    ),
)
