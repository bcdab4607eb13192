"""DiffRate on CAFormer: in its stages of attention, merge the tokens that receive the least attention."""

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from reference_impls.layers.caformer import (
    EPS,
    CaformerHead,
    ConvBlock,
    Downsampling,
    ResScale,
    SelfAttention,
    StarMlp,
    WithoutBias,
)
from reference_impls.layers.diffrate_schedules import tables
from reference_impls.layers.families.base import linear_macs
from reference_impls.layers.image_checks import check_image_shape
from reference_impls.layers.reduction import TokenState, select
from reference_impls.layers.sorted_compression import merge_last
from reference_impls.reducers.diffrate import METHOD as DIFFRATE
from tokenmark.contracts import BudgetError, ClassifierMethod, Variant

__all__ = ["METHOD", "MergingCaformer"]

CONVOLUTIONAL = 2
"""Stages before those of attention."""


class MergingBlock(nn.Module):
    """A block of attention that sorts its tokens by the attention they receive, and merges the last into the others."""

    def __init__(self, width: int, kept: int) -> None:
        super().__init__()
        self.kept = kept
        self.norm1 = WithoutBias(width)
        self.token_mixer = SelfAttention(width)
        self.res_scale1 = ResScale(width)
        self.norm2 = WithoutBias(width)
        self.mlp = StarMlp(width)
        self.res_scale2 = ResScale(width)

    def forward(self, state: TokenState) -> TokenState:
        """Attention, merging, MLP."""
        mixed, received = self.token_mixer(self.norm1(state.x), state.size)
        state = replace(state, x=self.res_scale1(state.x) + mixed)
        state = select(state, received.detach().argsort(dim=1, descending=True, stable=True))
        if self.kept < state.x.shape[1]:
            # The release bars the first token, for in its other models that is the class token.
            state = merge_last(state, self.kept, prefix=1, discount=False)
        return replace(state, x=self.res_scale2(state.x) + self.mlp(self.norm2(state.x)))


class MergingCaformer(nn.Module):
    """CAFormer whose blocks of attention keep at most `merge_kept` tokens; each stage begins with all of its own.

    Before a stage ends, every token is copied back to all the places that it stands for.

    Raises:
        BudgetError: not as many numbers as blocks of attention, or one below 2.
    """

    def __init__(
        self,
        *,
        depths: Sequence[int] = (3, 12, 18, 3),
        dims: Sequence[int] = (64, 128, 320, 512),
        num_classes: int = 1000,
        img_size: int = 224,
        merge_kept: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.img_size = img_size
        self.image_shape = (3, img_size, img_size)
        attending = sum(depths[CONVOLUTIONAL:])
        kept = [img_size**2] * attending if merge_kept is None else list(merge_kept)  # more than there ever are
        if len(kept) != attending or min(kept) < 2:
            raise BudgetError(
                f"merge_kept {kept} must be {attending} numbers, one for each block of attention, above 1"
            )
        widths = (3, *dims)
        self.downsample_layers = nn.ModuleList(
            Downsampling(widths[stage], widths[stage + 1], stem=stage == 0) for stage in range(len(dims))
        )
        self.stages = nn.ModuleList()
        for stage, (depth, width) in enumerate(zip(depths, dims, strict=True)):
            if stage < CONVOLUTIONAL:
                blocks: list[nn.Module] = [ConvBlock(width) for _ in range(depth)]
            else:
                blocks = [MergingBlock(width, kept.pop(0)) for _ in range(depth)]
            self.stages.append(nn.Sequential(*blocks))
        self.norm = nn.LayerNorm(dims[-1], eps=EPS)
        self.head = CaformerHead(dims[-1], num_classes)

    def features(self, images: Tensor) -> Tensor:
        """The mean over all places of the last stage's tokens, normed, `(B, dims[-1])`."""
        x = images.permute(0, 2, 3, 1)
        for stage, (downsampling, blocks) in enumerate(zip(self.downsample_layers, self.stages, strict=True)):
            x = downsampling(x)
            if stage < CONVOLUTIONAL:
                x = blocks(x)
                continue
            shape, tokens = x.shape, x.flatten(1, 2)
            source = torch.arange(tokens.shape[1], device=x.device).expand(tokens.shape[:2])
            state = blocks(TokenState(tokens, source=source))
            x = state.x.gather(1, state.source[..., None].expand(-1, -1, shape[3])).reshape(shape)
        return cast("Tensor", self.norm(x.mean(dim=(1, 2))))

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image: convolutions, linear layers and both products of attention."""
        total, side = linear_macs(self.head), self.img_size
        for downsampling, blocks in zip(self.downsample_layers, self.stages, strict=True):
            conv = cast("Downsampling", downsampling).conv
            side = (side + 2 * int(conv.padding[0]) - conv.kernel_size[0]) // conv.stride[0] + 1
            tokens = side * side
            total += tokens * conv.weight.numel()
            for block in cast("nn.Sequential", blocks):
                if isinstance(block, MergingBlock):
                    total += tokens * linear_macs(block.token_mixer) + 2 * tokens**2 * block.norm1.weight.numel()
                    tokens = min(tokens, block.kept)
                elif isinstance(block, ConvBlock):
                    total += tokens * (linear_macs(block.token_mixer) + block.token_mixer.dwconv.weight.numel())
                total += tokens * linear_macs(cast("nn.Module", block.mlp))
        return total

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(B, num_classes)` of normalised images `(B, 3, H, W)`."""
        check_image_shape(images, self.image_shape)
        return cast("Tensor", self.head(self.features(images)))


METHOD = ClassifierMethod(
    id="diffrate-caformer",
    title="DiffRate on CAFormer",
    idea="In CAFormer's blocks of attention, merge the tokens that receive the least, as many as was learned.",
    acts="blocks of the last 2 stages, after attention",
    paper=DIFFRATE.paper,
    build=MergingCaformer,
    variants={
        "caformer-s36": Variant(note="CAFormer-S36 as it is; sail-sg/metaformer has its weights, for all of these"),
        **{
            f"caformer-s36-{budget:.1f}": Variant(
                config={"merge_kept": acts["merge"]}, note=f"{budget:.1f} GMAC; the weights of caformer-s36"
            )
            for budget, acts in tables()["caformer-s36"].items()
        },
    },
)
