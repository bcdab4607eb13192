"""STViT-R: in Swin's third stage a few semantic tokens per window take most blocks' place; all tokens come back."""

from collections.abc import Sequence

import torch
from timm.layers.helpers import to_2tuple
from torch import Tensor, nn

from reference_impls.layers.image_checks import check_image_shape
from reference_impls.layers.semantic_tokens import WINDOW, GroupBlock, LookBlock, PoolBlock, semantic_grid
from reference_impls.layers.swin import PatchMerging, SwinBlock
from tokenmark.contracts import ClassifierMethod, MethodError, Paper, Variant

__all__ = ["METHOD", "SemanticSwin"]

SEMANTIC_STAGE, PATCH = 2, 4
CYCLE = 6
"""Blocks from one look at all tokens to the next."""


class ConvBN(nn.Module):
    """A convolution that halves a map's sides, and a batch norm."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.c = nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """From `(B, channels, H, W)` to `(B, width, H / 2, W / 2)`."""
        out: Tensor = self.bn(self.c(x))
        return out


class Stem(nn.Module):
    """Patches of 4 x 4 pixels by two convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(ConvBN(3, width // 2), nn.Hardswish(), ConvBN(width // 2, width), nn.Hardswish())

    def forward(self, images: Tensor) -> Tensor:
        """From `(B, 3, H, W)` to `(B, H / 4, W / 4, C)`."""
        out: Tensor = self.proj(images).permute(0, 2, 3, 1)
        return out


class SwinStage(nn.Module):
    """Swin's blocks of one resolution, every other one shifted, and a merging of patches behind all but the last."""

    def __init__(self, width: int, heads: int, grid: tuple[int, int], depth: int, *, last: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            SwinBlock(width, heads, grid, WINDOW, shifted=index % 2 == 1) for index in range(depth)
        )
        self.downsample = nn.Identity() if last else PatchMerging(width)

    def forward(self, x: Tensor) -> Tensor:
        """From maps `(B, H, W, C)` to those that enter the next stage."""
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.downsample(x)
        return out


class SemanticStage(nn.Module):
    """Cycles of six blocks, of which semantic tokens take four, and which end with all tokens.

    All tokens attend in windows; semantic tokens are made of them, attend to both, to their window's, to each other;
    then all tokens look at the semantic ones, so that the stage that follows has a token for every place.
    `relative_pos` gives the semantic tokens' own attention a bias by offset, `use_global` adds a learned table to the
    first cycle's queries; `use_conv_pos` and `shortcut` are those of `PoolBlock`.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        grid: tuple[int, int],
        depth: int,
        *,
        relative_pos: bool,
        use_conv_pos: bool,
        shortcut: bool,
        use_global: bool,
    ) -> None:
        super().__init__()
        if depth % CYCLE:
            raise MethodError(f"stage {SEMANTIC_STAGE + 1} has {depth} blocks: cycles of {CYCLE} do not fill it")
        sides = semantic_grid(grid)
        self.grid, self.use_global = grid, use_global
        if use_global:
            table = nn.init.trunc_normal_(torch.empty(1, sides[0] * sides[1], width), std=0.02)
            self.semantic_token2 = nn.Parameter(table)
        self.blocks = nn.ModuleList()
        for _ in range(depth // CYCLE):
            self.blocks.extend(
                [
                    SwinBlock(width, heads, grid, WINDOW),
                    PoolBlock(width, heads, grid, use_conv_pos=use_conv_pos, shortcut=shortcut),
                    LookBlock(width, heads),
                    GroupBlock(width, heads, sides, relative_pos=relative_pos),
                    LookBlock(width, heads, sides if relative_pos else None),
                    LookBlock(width, heads),
                ]
            )
        self.downsample = PatchMerging(width)

    def forward(self, x: Tensor) -> Tensor:
        """From maps `(B, H, W, C)` to those that enter the next stage."""
        x = x.flatten(1, 2)
        for first in range(0, len(self.blocks), CYCLE):
            whole, pool, both, groups, among, back = self.blocks[first : first + CYCLE]
            x = whole(x.unflatten(1, self.grid)).flatten(1, 2)
            semantic = pool(x, x)
            queries = semantic + self.semantic_token2 if self.use_global and first == 0 else semantic
            semantic = both(queries, torch.cat((semantic, x), dim=1))
            semantic = groups(semantic, semantic)
            semantic = among(semantic, semantic)
            x = back(x, semantic)
        out: Tensor = self.downsample(x.unflatten(1, self.grid))
        return out


class SemanticSwin(nn.Module):
    """Swin with semantic tokens in its third stage; takes images of one size, a multiple of 224 on each side."""

    def __init__(
        self,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 18, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        num_classes: int = 1000,
        img_size: int | tuple[int, int] = 224,
        *,
        relative_pos: bool = False,
        use_conv_pos: bool = False,
        shortcut: bool = False,
        use_global: bool = False,
    ) -> None:
        super().__init__()
        least = PATCH * 2 ** (len(depths) - 1) * WINDOW
        self.image_shape: tuple[int, int, int] = (3, *to_2tuple(img_size))
        height, across = self.image_shape[1:]
        if not all(side > 0 and side % least == 0 for side in (height, across)):
            raise MethodError(f"img_size {img_size} must be multiples of {least} pixels, so that windows tile it")
        options = {
            "relative_pos": relative_pos,
            "use_conv_pos": use_conv_pos,
            "shortcut": shortcut,
            "use_global": use_global,
        }
        self.patch_embed = Stem(embed_dim)
        self.layers = nn.ModuleList()
        for stage, (depth, heads) in enumerate(zip(depths, num_heads, strict=True)):
            width = embed_dim * 2**stage
            grid = (height // PATCH // 2**stage, across // PATCH // 2**stage)
            if stage == SEMANTIC_STAGE:
                self.layers.append(SemanticStage(width, heads, grid, depth, **options))
            else:
                self.layers.append(SwinStage(width, heads, grid, depth, last=stage == len(depths) - 1))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """The mean of the last stage's tokens, `(B, C)`.

        Raises:
            MethodError: the images are not of the size that it was built for.
        """
        check_image_shape(images, self.image_shape)
        x = self.patch_embed(images)
        for layer in self.layers:
            x = layer(x)
        out: Tensor = self.norm(x).mean(dim=(1, 2))
        return out

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(B, classes)` of normalised images `(B, 3, H, W)`."""
        out: Tensor = self.head(self.features(images))
        return out


METHOD = ClassifierMethod(
    id="stvit-r",
    title="STViT-R (semantic tokens)",
    idea="In Swin's third stage nine semantic tokens per window take the place of all in four of six blocks.",
    acts="stage 3 of Swin, cycles of 6 blocks",
    paper=Paper(
        title="Making Vision Transformers Efficient from A Token Sparsification View",
        authors="Chang, Wang, Lin, Wang, Zhang, Jin, Shou",
        year=2023,
        url="https://arxiv.org/abs/2303.08685",
    ),
    build=SemanticSwin,
    variants={
        "swin-s": Variant(config={}, note="csncsn/STViT-R on the Hugging Face hub"),
        "swin-b": Variant(
            config={"embed_dim": 128, "num_heads": (4, 8, 16, 32)}, note="csncsn/STViT-R on the Hugging Face hub"
        ),
    },
)
