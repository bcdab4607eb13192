"""Residual quantisation from coarse to fine: every scale codes what the coarser ones left over (VAR, arXiv 2404.02905).

Algorithms 1 and 2 there: the residual is averaged down to `s x s`, quantised, enlarged again (bicubic), passed
through a small convolution phi where the method has one, added to the sum and taken from the residual.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.grid_vq import as_grid, as_rows
from reference_impls.layers.precision import at_least_float32, without_autocast
from reference_impls.layers.quantizers import Quantized, Quantizer, nearest_rows
from tokenmark.contracts import MethodError

__all__ = ["MultiScaleQuantizer", "MultiScaleVQ", "Phi", "SharedPhis", "phi_places"]


def phi_places(scales: int, count: int) -> tuple[int, ...]:
    """Which of `count` shared phis serves each of `scales` scales: that with the tick nearest to its share of the way.

    VAR's rule (quant.py). Ten scales have exact ties, which the rounding of float64 decides: hence NumPy's expression.
    """
    edge = 1 / 3 / count if count == 4 else 1 / 2 / count
    ticks = np.linspace(edge, 1 - edge, count)
    return tuple(int(np.argmin(np.abs(ticks - scale / max(1, scales - 1)))) for scale in range(scales))


class Phi(nn.Conv2d):
    """Mixes a grid with its 3x3 convolution, in float32 at least.

    Args:
        channels: Channels of the grid.
        ratio: Share of the convolution.
    """

    def __init__(self, channels: int, ratio: float = 0.5) -> None:
        super().__init__(channels, channels, 3, padding=1)
        self.ratio = ratio

    def forward(self, grid: Tensor) -> Tensor:
        """`(B, C, h, w)` to the same shape."""
        bias = None if self.bias is None else at_least_float32(self.bias)
        convolved = functional.conv2d(grid, at_least_float32(self.weight), bias, padding=1)
        return grid * (1 - self.ratio) + convolved * self.ratio


class SharedPhis(nn.Module):
    """Fewer phis than scales.

    Args:
        channels: Channels of the grid.
        scales: Number of scales.
        count: Number of phis.
        ratio: Share of their convolutions.
    """

    def __init__(self, channels: int, scales: int, count: int = 4, ratio: float = 0.5) -> None:
        super().__init__()
        self.qresi_ls = nn.ModuleList(Phi(channels, ratio) for _ in range(count))
        self.places = phi_places(scales, count)

    def forward(self, grid: Tensor, scale: int) -> Tensor:
        """The phi of scale number `scale`, on a grid `(B, C, h, w)`."""
        out: Tensor = self.qresi_ls[self.places[scale]](grid)
        return out


class MultiScaleQuantizer(Quantizer):
    """The loop over scales; a method says how rows are `choose`n and what a code stands for (`rows`).

    Latents are the finest scale's grid, row by row; codes `(B, N)` hold the scales one after the other, coarse to
    fine. Everything here is computed in float32 at least, also under autocast.

    Args:
        scales: Sides of the grids, coarse to fine; the last is the side of the latents' grid.
        phis: Called with an enlarged grid and the number of its scale; None leaves the grid as it is.
        commitment_cost: Weight of the commitment term.
    """

    def __init__(self, scales: Sequence[int], phis: nn.Module | None = None, commitment_cost: float = 0.25) -> None:
        super().__init__()
        if not scales or min(scales) < 1 or max(scales) != scales[-1]:
            raise MethodError(f"scales must be sides of grids of which the last is the largest, got {list(scales)}")
        self.scales = tuple(scales)
        self.quant_resi = phis
        self.commitment_cost = commitment_cost

    @property
    def length(self) -> int:
        """Codes of one image, all scales together."""
        return sum(side * side for side in self.scales)

    def choose(self, rows: Tensor, scale: int) -> Tensor:
        """Codes `(B, n)` of rows `(B, n, C)` of scale number `scale`."""
        raise NotImplementedError

    def rows(self, codes: Tensor, scale: int) -> Tensor:
        """What codes `(B, n)` of scale number `scale` stand for, `(B, n, C)`."""
        raise NotImplementedError

    def prepare(self, latents: Tensor) -> Tensor:
        """What is quantised, of latents `(B, N, C)`: the latents themselves, unless a method says otherwise."""
        return latents

    def step(self, codes: Tensor, scale: int) -> Tensor:
        """What scale number `scale` adds to the sum, at full size `(B, C, S, S)`."""
        side, full = self.scales[scale], self.scales[-1]
        grid = as_grid(at_least_float32(self.rows(codes, scale)), side)
        if side != full:
            grid = functional.interpolate(grid, size=(full, full), mode="bicubic")
        return grid if self.quant_resi is None else self.quant_resi(grid, scale)

    def forward(self, latents: Tensor) -> Quantized:
        """Quantise latents `(B, S*S, C)`: codes `(B, N)`, and the sum over all scales in the latents' shape.

        The losses are the means over all scales of the sum so far against the latents.
        """
        with without_autocast(latents):
            latents = self.prepare(at_least_float32(latents))
            target = as_grid(latents, self.scales[-1])
            residual, total = target.detach(), torch.zeros_like(target)
            codes, codebook_losses, commitment_losses = [], [], []
            for scale, side in enumerate(self.scales):
                pooled = residual if side == self.scales[-1] else functional.adaptive_avg_pool2d(residual, side)
                codes.append(self.choose(as_rows(pooled), scale))
                step = self.step(codes[-1], scale)
                total, residual = total + step, residual - step.detach()
                codebook_losses.append((total - target.detach()).square().mean())
                commitment_losses.append((total.detach() - target).square().mean())
            quantized = latents + (as_rows(total) - latents).detach()
        codebook_loss = torch.stack(codebook_losses).mean()
        commitment_loss = self.commitment_cost * torch.stack(commitment_losses).mean()
        return Quantized(torch.cat(codes, dim=1), quantized, codebook_loss, commitment_loss)

    def split(self, codes: Tensor) -> list[Tensor]:
        """Codes `(B, N)` by scale; the coarsest scales alone will do, but only whole ones (MethodError)."""
        sizes, length = [], 0
        for side in self.scales:
            if length < codes.shape[1]:
                sizes.append(side * side)
                length += side * side
        if length != codes.shape[1]:
            raise MethodError(f"{codes.shape[1]} codes are not a whole number of the scales {list(self.scales)}")
        return list(codes.split(sizes, dim=1))

    def sums(self, codes: Tensor) -> list[Tensor]:
        """The sum `(B, C, S, S)` after every scale that codes `(B, N)` hold."""
        with without_autocast(codes):
            total = self.step(codes[:, : self.scales[0] ** 2], 0)
            found = [total]
            for scale, part in enumerate(self.split(codes)[1:], start=1):
                total = total + self.step(part, scale)
                found.append(total)
        return found

    def lookup(self, codes: Tensor) -> Tensor:
        """The sum `(B, S*S, C)` over the scales that codes `(B, N)` hold."""
        return as_rows(self.sums(codes)[-1])

    def next_inputs(self, codes: Tensor) -> Tensor:
        """What a generator is shown for every scale but the first: the sum so far, averaged down to that scale.

        `(B, N - n_0, C)` of all codes `(B, N)` (VAR, section 3.2).
        """
        sums = self.sums(codes)[:-1]
        pooled = [
            functional.adaptive_avg_pool2d(total, side) for total, side in zip(sums, self.scales[1:], strict=False)
        ]
        return torch.cat([as_rows(total) for total in pooled], dim=1)


class MultiScaleVQ(MultiScaleQuantizer):
    """One codebook for all scales, whose rows are added as they are.

    Args:
        scales: As in `MultiScaleQuantizer`.
        codebook_size: Number of codes.
        dim: Width of a code.
        phis: As in `MultiScaleQuantizer`.
        cosine: Choose by the angle and not by the distance; ties go to the lowest index.
        commitment_cost: Weight of the commitment term.
    """

    def __init__(
        self,
        scales: Sequence[int],
        codebook_size: int,
        dim: int,
        *,
        phis: nn.Module | None = None,
        cosine: bool = False,
        commitment_cost: float = 0.25,
    ) -> None:
        super().__init__(scales, phis, commitment_cost)
        self.cosine = cosine
        # Rows start at the latents' own size: such as are next to nothing would leave the same residual to every scale.
        self.embedding = nn.Embedding(codebook_size, dim)
        # Training statistics that releases keep in their checkpoints.
        self.register_buffer("ema_vocab_hit_SV", torch.zeros(len(scales), codebook_size))

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """The only codebook's."""
        return (self.embedding.num_embeddings,)

    def choose(self, rows: Tensor, scale: int) -> Tensor:  # noqa: ARG002  all scales alike
        """Codes `(B, n)` of rows `(B, n, C)`."""
        book = at_least_float32(self.embedding.weight).detach()
        if self.cosine:
            return (functional.normalize(rows, dim=-1) @ functional.normalize(book, dim=-1).T).argmax(-1)
        return nearest_rows(rows, book)

    def rows(self, codes: Tensor, scale: int) -> Tensor:  # noqa: ARG002  all scales alike
        """Codebook rows `(B, n, C)` of codes `(B, n)`."""
        return functional.embedding(codes, at_least_float32(self.embedding.weight))
