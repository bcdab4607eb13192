"""FlowAR's network: a transformer over scales says what may come, a flow network turns noise into it.

After "FlowAR: Scale-wise Autoregressive Image Generation Meets Flow Matching" (arXiv 2412.15205, section 3). Rows are
those of all scales, coarse to fine, each row by row.
"""

import functools
from collections.abc import Sequence
from math import isqrt

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from reference_impls.layers.flowar_blocks import EPS, HEAD_DIM, FlowKind, FlowNet, SpatialBlock
from reference_impls.layers.grid_vq import as_grid, as_rows
from reference_impls.layers.llama_gpt import KeptPairs, grid_rotation
from reference_impls.layers.swiglu_blocks import drawn
from reference_impls.layers.var_transformer import scale_mask
from tokenmark.contracts import MethodError

__all__ = ["FlowarNetwork", "resized", "scale_rotation", "shown_to_next"]

PERIOD = 10000.0


def resized(latents: Tensor, side: int) -> Tensor:
    """Latents `(B, C, h, h)` averaged down to `(B, C, side, side)`."""
    return latents if latents.shape[-1] == side else interpolate(latents, size=(side, side), mode="area")


def shown_to_next(coarse: Tensor, full: int, side: int) -> Tensor:
    """A scale's latents `(B, C, s, s)` as the next one, of `side`, reads them.

    They are enlarged to the finest grid, of side `full`, and averaged down again.
    """
    return resized(interpolate(coarse, size=(full, full), mode="bicubic"), side)


def scale_rotation(side: int, full: int, channels: int, device: torch.device) -> Tensor:
    """Cosines and sines `(side * side, channels / 2, 2)` of a scale's cells, row by row, float64.

    All scales share the places of the finest one, of side `full`: a cell turns as the first of those that it covers.
    """
    grid = grid_rotation(full, channels, PERIOD, device)[1:].unflatten(0, (full, full))
    every = full // side
    table: Tensor = grid[::every, ::every].flatten(0, 1)
    return table


@functools.lru_cache(maxsize=8)
@torch.inference_mode(mode=False)  # what is kept must also do for training
def rotation_of(scales: tuple[int, ...], channels: int, number_type: torch.dtype, device: torch.device) -> Tensor:
    """Of all scales' cells, `(L, channels / 2, 2)`."""
    return torch.cat([scale_rotation(side, scales[-1], channels, device) for side in scales]).to(number_type)


class FlowarNetwork(nn.Module):
    """Features of every cell of every scale, given the class and the coarser scales; and velocities given features.

    Args:
        scales: Sides of the scales, coarse to fine; each divides the last.
        channels: Channels of a latent, C.
        classes: Number of classes; one row more stands for the dropped one.
        width: Of the transformer over scales, D.
        encoder_depth: Its blocks before the second positions are added.
        decoder_depth: And behind.
        heads: Attention heads of each.
        flow_width: Width of the flow network, a multiple of 64.
        flow_depth: Its blocks.
        flow_kind: What they are; see `FlowNet`.
        mlp_ratio: Hidden channels of all MLPs over two thirds of the width.
        dropout: Of attention and of its projection, in training.
    """

    mask: Tensor

    def __init__(
        self,
        *,
        scales: Sequence[int],
        channels: int,
        classes: int,
        width: int,
        encoder_depth: int,
        decoder_depth: int,
        heads: int,
        flow_width: int,
        flow_depth: int,
        flow_kind: FlowKind,
        mlp_ratio: float = 4.0,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if not scales or any(side < 1 or scales[-1] % side for side in scales):
            raise MethodError(f"scales must be sides that divide the last of them, got {list(scales)}")
        if width % heads or width // heads % 4 or flow_width % HEAD_DIM:
            raise MethodError(
                f"heads must divide the width into a multiple of 4, and {HEAD_DIM} that of the flow network; "
                f"got {heads} heads of {width}, and {flow_width}"
            )
        if flow_kind not in ("spatial", "cross"):
            raise MethodError(f"flow_kind must be spatial or cross, got '{flow_kind}'")
        self.scales, self.channels = tuple(scales), channels
        length, head_dim = sum(side * side for side in scales), width // heads
        self.length, self.head_dim = length, head_dim
        # Where a row may look: at its own scale, and at those that are coarser.
        self.register_buffer("mask", scale_mask(self.scales)[1][0, 0] == 0, persistent=False)
        self.class_emb = nn.Embedding(classes + 1, width)
        self.z_proj = nn.Linear(channels, width)
        self.encoder_positions, self.decoder_positions, self.output_positions = (
            drawn(1, length, width) for _ in range(3)
        )
        self.input_norm, self.encoder_norm, self.decoder_norm = (nn.RMSNorm(width, eps=EPS) for _ in range(3))
        self.encoder_blocks, self.decoder_blocks = (
            nn.ModuleList(SpatialBlock(width, heads, mlp_ratio, dropout) for _ in range(depth))
            for depth in (encoder_depth, decoder_depth)
        )
        self.decoder_embed = nn.Linear(width, width)
        self.flow = FlowNet(channels, width, flow_width, flow_depth, flow_kind, mlp_ratio=mlp_ratio, dropout=dropout)

    @property
    def number_type(self) -> torch.dtype:
        """The type of its own numbers."""
        return self.z_proj.weight.dtype

    def targets(self, latents: Tensor) -> list[Tensor]:
        """What the scales are to be, `(B, C, s, s)` each, for latents `(B, N, C)` of the finest: averages of those.

        Every scale holds the whole image, and not what the coarser ones left over.
        """
        grid = as_grid(latents, isqrt(latents.shape[1]))
        return [resized(grid, side) for side in self.scales]

    def inputs(self, targets: Sequence[Tensor]) -> Tensor:
        """What all scales but the first read, `(B, L - s_0^2, C)`, in training: the one before each, as it is to be."""
        pairs = zip(targets, self.scales[1:], strict=False)
        return torch.cat([as_rows(shown_to_next(coarse, self.scales[-1], side)) for coarse, side in pairs], dim=1)

    def features(self, labels: Tensor, inputs: Tensor) -> Tensor:
        """Features `(B, L, D)` of all scales at once for `inputs` of `(B, L - s_0^2, C)`; see `inputs`.

        Labels are int64 `(B,)`, where the number of classes is the dropped one.
        """
        classes = self.class_emb(labels).unsqueeze(1)
        first = classes.expand(-1, self.scales[0] ** 2, -1)
        return self.run(torch.cat([first, self.z_proj(inputs.to(classes.dtype))], dim=1), classes, mask=self.mask)

    def run(
        self,
        rows: Tensor,
        classes: Tensor,
        start: int = 0,
        kept: Sequence[KeptPairs] | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Features of embedded `rows` `(B, n, D)` from `start` on, `(B, n, D)`.

        Args:
            rows: Of one scale, whose coarser ones are in `kept`; or of all of them, under `mask`.
            classes: Embedded, `(B, 1, D)`.
            start: How many rows are before these.
            kept: Keys and values of every block, which are filled.
            mask: bool, true where a row may look.
        """
        places = slice(start, start + rows.shape[1])
        rotation = self.rotation(self.head_dim)[places]
        depth = len(self.encoder_blocks)
        x = self.input_norm(rows + self.encoder_positions[:, places])
        for index, block in enumerate([*self.encoder_blocks, *self.decoder_blocks]):
            if index == depth:
                x = self.decoder_embed(self.encoder_norm(x)) + self.decoder_positions[:, places]
            x = block(x, classes, rotation, mask, start, None if kept is None else kept[index])
        out: Tensor = self.decoder_norm(x) + self.output_positions[:, places]
        return out

    def caches(self) -> list[KeptPairs]:
        """Empty ones for every block over scales."""
        return [KeptPairs(self.length) for _ in range(len(self.encoder_blocks) + len(self.decoder_blocks))]

    def velocity(self, x: Tensor, ticks: Tensor, embedded: Tensor, scale: int) -> Tensor:
        """Velocities `(B, n, C)` of the noisy latents `x` of scale number `scale`.

        `ticks` are times in thousandths, `(B,)` or `(1,)`, and `embedded` is what `flow.cond_embed` gave of the
        scale's features.
        """
        start = sum(side * side for side in self.scales[:scale])
        rotation = self.rotation(HEAD_DIM)[start : start + x.shape[1]]
        out: Tensor = self.flow(x.to(self.number_type), ticks, embedded, rotation)
        return out

    def rotation(self, channels: int) -> Tensor:
        """Of all rows, `(L, channels / 2, 2)`, in float32 at least."""
        exact = torch.float64 if self.number_type == torch.float64 else torch.float32
        return rotation_of(self.scales, channels, exact, self.z_proj.weight.device)
