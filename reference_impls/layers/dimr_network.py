"""DiMR's network: a transformer on a coarse grid and ConvNeXt blocks on a finer one (arXiv 2406.09416, section 3).

Time enters by nothing but the parameters of norms.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from tokenmark.contracts import MethodError

__all__ = ["DimrNetwork", "Stage", "StageSize"]

RMS_EPS = 1e-8


@dataclass(frozen=True, slots=True)
class StageSize:
    """Sizes of one stage, named as in the release's configuration."""

    block_type: Literal["TransformerBlock", "ConvNeXtBlock"]
    dim: int
    hidden_dim: int
    """Hidden channels of the gated MLPs."""
    num_blocks: int
    """An even number stands for the odd one above it, for there is always a block in the middle."""
    max_height: int
    max_width: int
    input_feature_ratio: int
    """Side of the patches that a token of the stage takes in."""
    final_kernel_size: int
    num_attention_heads: int = 1
    """Of transformer blocks."""
    kernel_size: int = 7
    """Of ConvNeXt blocks."""
    image_input_ratio: int = 1
    """By how much the stage's input is made smaller first; in every release not at all."""
    dropout_prob: float = 0.0
    """In training; 0 in every release."""

    def __post_init__(self) -> None:
        if self.block_type not in ("TransformerBlock", "ConvNeXtBlock"):
            raise MethodError(f"block_type must be TransformerBlock or ConvNeXtBlock, got '{self.block_type}'")
        if self.image_input_ratio != 1:
            raise MethodError(f"image_input_ratio must be 1, got {self.image_input_ratio}")
        if self.dim % self.num_attention_heads:
            raise MethodError(f"{self.num_attention_heads} heads do not divide {self.dim} channels")


class TimeDependent(nn.Module):
    """A parameter that goes from one value to another as time does, at a pace of its own for every channel."""

    def __init__(self, width: int, value: float) -> None:
        super().__init__()
        self.param0 = nn.Parameter(torch.full((width,), value))
        self.param1 = nn.Parameter(torch.full((width,), value))
        self.nodecay_weight = nn.Parameter(torch.zeros(width))
        self.nodecay_bias = nn.Parameter(torch.zeros(width))

    def forward(self, when: Tensor, dims: int) -> Tensor:
        """`(T, 1, ..., width)` in `dims` dimensions at times `(T,)` in [-4, 4]; T is the batch, or 1 for all of it."""
        share = torch.sigmoid((1.0 + self.nodecay_weight) * (when[:, None] / 4.0) + self.nodecay_bias)
        value: Tensor = torch.lerp(self.param1, self.param0, share)
        return value.reshape(len(when), *[1] * (dims - 2), -1)


class TimedRmsNorm(nn.Module):
    """RMS norm with a time-dependent scale; eps is added to the root, and not under it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = TimeDependent(width, 1.0)

    def forward(self, x: Tensor, when: Tensor) -> Tensor:
        """`(B, ..., D)` at times `(T,)` to the same shape."""
        rms = torch.linalg.vector_norm(x, dim=-1, keepdim=True) * x.shape[-1] ** -0.5
        out: Tensor = self.scale(when, x.dim()) * (x / (rms + RMS_EPS))
        return out


class TimedLayerNorm(nn.Module):
    """Layer norm with a time-dependent weight and bias."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = TimeDependent(width, 1.0)
        self.bias = TimeDependent(width, 0.0)

    def forward(self, x: Tensor, when: Tensor) -> Tensor:
        """`(B, ..., D)` at times `(T,)` to the same shape."""
        normed = functional.layer_norm(x, x.shape[-1:])
        out: Tensor = normed * self.weight(when, x.dim()) + self.bias(when, x.dim())
        return out


class SelfAttention(nn.Module):
    """Norm, then attention; queries, keys and values have no bias."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = TimedRmsNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.dense = nn.Linear(width, width)

    def forward(self, x: Tensor, when: Tensor) -> Tensor:
        """`(B, L, D)` at times `(T,)` to the same shape."""
        projected = self.query_key_value(self.norm(x, when))
        query, key, value = projected.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.dense(mixed.transpose(1, 2).flatten(2))
        return out


class GatedMlp(nn.Module):
    """Norm, then an MLP whose hidden channels are gated by exact GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = TimedRmsNorm(width)
        self.w0 = nn.Linear(width, hidden)
        self.w1 = nn.Linear(width, hidden)
        self.w2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor, when: Tensor) -> Tensor:
        """`(B, ..., D)` at times `(T,)` to the same shape."""
        x = self.norm(x, when)
        out: Tensor = self.w2(functional.gelu(self.w0(x)) * self.w1(x))
        return out


class TransformerBlock(nn.Module):
    """Attention and MLP."""

    def __init__(self, size: StageSize) -> None:
        super().__init__()
        self.block1 = SelfAttention(size.dim, size.num_attention_heads)
        self.block2 = GatedMlp(size.dim, size.hidden_dim)

    def forward(self, x: Tensor, when: Tensor) -> Tensor:
        """`(B, L, D)` at times `(T,)` to the same shape."""
        x = x + self.block1(x, when)
        out: Tensor = x + self.block2(x, when)
        return out


class ConvNeXtBlock(nn.Module):
    """A convolution of each channel, without a norm, and an MLP; a residual around both."""

    def __init__(self, size: StageSize) -> None:
        super().__init__()
        self.block1 = nn.Conv2d(size.dim, size.dim, size.kernel_size, padding=size.kernel_size // 2, groups=size.dim)
        self.block2 = GatedMlp(size.dim, size.hidden_dim)

    def forward(self, x: Tensor, when: Tensor) -> Tensor:
        """`(B, H, W, D)` at times `(T,)` to the same shape."""
        x = x + self.block1(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        out: Tensor = x + self.block2(x, when)
        return out


class Entry(nn.Module):
    """Patches as vectors, and where they are."""

    def __init__(self, channels: int, size: StageSize) -> None:
        super().__init__()
        side = size.input_feature_ratio
        self.patches = nn.Conv2d(channels, size.dim, side, stride=side)
        self.positions = nn.Embedding(size.max_height * size.max_width, size.dim)
        nn.init.trunc_normal_(self.positions.weight, std=0.02)

    def forward(self, images: Tensor) -> Tensor:
        """`(B, C, H, W)` to `(B, h, w, D)`."""
        grid = self.patches(images).permute(0, 2, 3, 1)
        out: Tensor = grid + self.positions.weight.unflatten(0, grid.shape[1:3])
        return out


class Upsample(nn.Module):
    """All that a coarser stage has seen, on the finer grid: norm, linear, pixel shuffle, norm."""

    def __init__(self, inputs: int, width: int, ratio: int) -> None:
        super().__init__()
        self.ratio = ratio
        self.before = TimedLayerNorm(inputs)
        self.kernel = nn.Linear(inputs, width * ratio**2)
        self.after = TimedLayerNorm(width)

    def forward(self, x: Tensor, when: Tensor) -> Tensor:
        """`(B, h, w, inputs)` at times `(T,)` to `(B, ratio h, ratio w, D)`."""
        cells = self.kernel(self.before(x, when)).unflatten(3, (self.ratio, self.ratio, -1))
        out: Tensor = self.after(cells.transpose(2, 3).flatten(3, 4).flatten(1, 2), when)
        return out


class Stage(nn.Module):
    """A U-ViT (arXiv 2209.12152) on one grid; a transformer's has the class as its first token.

    Args:
        channels: Of what comes in and of what is predicted.
        classes: Rows of the table of classes.
        size: The stage's sizes.
        coarser: The sizes of the stage before; None for the first.
    """

    def __init__(self, channels: int, classes: int, size: StageSize, coarser: StageSize | None) -> None:
        super().__init__()
        kind = TransformerBlock if size.block_type == "TransformerBlock" else ConvNeXtBlock
        half = size.num_blocks // 2
        self.entry = Entry(channels, size)
        self.class_embeds = nn.Embedding(classes, size.dim) if kind is TransformerBlock else None
        if coarser is None:
            self.upsample = None
        else:
            inputs = coarser.dim * (coarser.num_blocks // 2 * 2 + 2)
            self.upsample = Upsample(inputs, size.dim, size.max_height // coarser.max_height)
        self.blocks = nn.ModuleList(kind(size) for _ in range(2 * half + 1))
        self.skip_denses = nn.ModuleList(nn.Linear(2 * size.dim, size.dim) for _ in range(half))
        self.head_norm = TimedLayerNorm(size.dim)
        self.head = nn.Conv2d(size.dim, channels, size.final_kernel_size, padding=size.final_kernel_size // 2)

    def forward(self, x: Tensor, when: Tensor, labels: Tensor, coarse: Tensor | None) -> tuple[Tensor, Tensor]:
        """Noisy latents `(B, C, H, W)` to a prediction `(B, C, h, w)` and all that was seen, `(B, h, w, sum of D)`."""
        x = self.entry(x)
        height = x.shape[1]
        if self.upsample is not None:
            x = x + self.upsample(coarse, when)
        if self.class_embeds is not None:
            x = torch.cat([self.class_embeds(labels)[:, None], x.flatten(1, 2)], dim=1)
        seen, half = [x], len(self.skip_denses)
        for block in self.blocks[: half + 1]:
            seen.append(block(seen[-1], when))
        skips = seen[half:0:-1]
        for dense, block, skip in zip(self.skip_denses, self.blocks[half + 1 :], skips, strict=True):
            # Back to the stream's number type, which under autocast a linear map leaves.
            joined = dense(torch.cat([seen[-1], skip], dim=-1)).to(skip.dtype)
            seen.append(block(joined, when))
        if self.class_embeds is not None:
            seen = [tokens[:, 1:].unflatten(1, (height, -1)) for tokens in seen]
        predicted = self.head(self.head_norm(seen[-1], when).permute(0, 3, 1, 2))
        return predicted, torch.cat(seen, dim=-1)


class DimrNetwork(nn.Module):
    """Stages from the coarsest grid to the finest, each of which sees all that the one before has seen.

    Args:
        channels: Of the latents.
        classes: Rows of the table of classes, the dropped one last.
        stages: Their sizes.
    """

    def __init__(self, *, channels: int, classes: int, stages: Sequence[StageSize]) -> None:
        super().__init__()
        before = [None, *stages[:-1]]
        # Stages are unlike each other, and stand in what `compile_blocks` passes by: it compiles their blocks.
        self.stages = nn.Sequential(
            *(Stage(channels, classes, size, coarser) for size, coarser in zip(stages, before, strict=True))
        )

    def forward(self, x: Tensor, when: Tensor, labels: Tensor) -> list[Tensor]:
        """The noise that each stage sees in latents `(B, C, H, W)`, on its own grid: `(B, C, h, w)`, the finest last.

        `when` is 8 t - 4 for a time t in [0, 1]: `(B,)`, or `(1,)` for all images alike.
        """
        predictions: list[Tensor] = []
        coarse: Tensor | None = None
        for stage in self.stages:
            predicted, coarse = stage(x, when, labels, coarse)
            predictions.append(predicted)
        return predictions
