"""Residual quantisation in depth: every level codes what the ones before it left over (RQ-VAE, arXiv 2203.01941)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.precision import at_least_float32, without_autocast
from reference_impls.layers.quantizers import Quantized, Quantizer, nearest_rows

__all__ = ["ResidualQuantizer"]


class ResidualQuantizer(Quantizer):
    """A latent as a sum of rows, one of each level's codebook, each the nearest to the rest (section 3.1 there).

    Everything is computed in float32 at least, also under autocast.

    Args:
        levels: Number of codebooks, D.
        codebook_size: Rows of each, K.
        dim: Channels of a latent, C.
        commitment_cost: Weight of the commitment term.
    """

    def __init__(self, levels: int, codebook_size: int, dim: int, *, commitment_cost: float = 0.25) -> None:
        super().__init__()
        self.commitment_cost = commitment_cost
        # K codes leave a share of about K^(-1/C) of a Gaussian's spread: rows begin as large as what is left to them.
        spread = float(codebook_size) ** (-torch.arange(levels) / dim)
        self.codebooks = nn.Parameter(torch.randn(levels, codebook_size, dim) * spread[:, None, None])

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """One size per level."""
        return (self.codebooks.shape[1],) * len(self.codebooks)

    def rows(self, codes: Tensor) -> Tensor:
        """What the code of each level stands for, `(..., D, C)` of `(..., D)`."""
        levels, size, _ = self.codebooks.shape
        first = size * torch.arange(levels, device=codes.device)
        return functional.embedding(codes + first, at_least_float32(self.codebooks).flatten(0, 1))

    def lookup(self, codes: Tensor) -> Tensor:
        """The sums `(..., C)` of codes `(..., D)`."""
        return self.rows(codes).sum(-2)

    def fill(self, rest: Tensor, codes: Tensor, first: Tensor) -> Tensor:
        """Codes `(..., D)` whose levels from `first` on quantise `rest`; those before are as in `codes`.

        Args:
            rest: What those levels are to add up to, `(..., C)`.
            codes: int64 `(..., D)`.
            first: int64 `(...)`, 0 to D; with D an image's codes stay as they are.
        """
        with without_autocast(rest):
            books, rest, found = at_least_float32(self.codebooks).detach(), at_least_float32(rest), []
            for level, book in enumerate(books):
                open_here = level >= first
                nearest = nearest_rows(rest, book)
                found.append(torch.where(open_here, nearest, codes[..., level]))
                rest = rest - functional.embedding(nearest, book) * open_here.unsqueeze(-1)
        return torch.stack(found, dim=-1)

    def forward(self, latents: Tensor) -> Quantized:
        """Quantise `latents` `(..., C)`; the losses are the means, over all levels, of the sum so far against them."""
        with without_autocast(latents):
            latents = at_least_float32(latents)
            empty = torch.zeros((*latents.shape[:-1], len(self.codebooks)), dtype=torch.int64, device=latents.device)
            codes = self.fill(latents.detach(), empty, empty[..., 0])
            sums = self.rows(codes).cumsum(-2)
            codebook_loss = (sums - latents.detach().unsqueeze(-2)).square().mean()
            commitment_loss = self.commitment_cost * (sums.detach() - latents.unsqueeze(-2)).square().mean()
            straight_through = latents + (sums[..., -1, :] - latents).detach()
        return Quantized(codes, straight_through, codebook_loss, commitment_loss)
