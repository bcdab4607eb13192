"""The nearest codebook row: what stands between an encoder and its decoder."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.precision import at_least_float32

__all__ = ["Quantized", "Quantizer", "TrainOutput", "VectorQuantizer", "nearest_rows"]


@dataclass(frozen=True, slots=True)
class Quantized:
    """Latents after a vector quantizer."""

    codes: Tensor
    """int64, the latents' shape without its last dimension."""
    quantized: Tensor
    """Codebook rows with straight-through gradients, `(..., D)`."""
    codebook_loss: Tensor
    """Scalar: pulls the codebook to the latents (VQ-VAE, eq. 3, second term)."""
    commitment_loss: Tensor
    """Scalar: pulls the latents to the codebook (VQ-VAE, eq. 3, third term), times the commitment cost."""
    entropy_loss: Tensor | None = None
    """Scalar: spreads the codes (MAGVIT-v2, eq. 6), times its weight; None where there is no such term."""

    @property
    def loss(self) -> Tensor:
        """Scalar: the sum of all terms."""
        loss = self.codebook_loss + self.commitment_loss
        return loss if self.entropy_loss is None else loss + self.entropy_loss


@dataclass(frozen=True, slots=True)
class TrainOutput:
    """One differentiable pass of a tokenizer, for its recipe to put losses on."""

    reconstruction: Tensor
    """Images `(B, 3, S, S)`, not clamped."""
    quantizer_loss: Tensor
    """Scalar: codebook and commitment terms, or the mean KL divergence of a Gaussian bottleneck."""
    codes: Tensor | None
    """int64 `(B, N)`; None for continuous latents."""
    logits: Tensor | None = None
    """Logits over the pixel codebook `(B, K, g, g)`, where the decoder gives such."""


class Quantizer(nn.Module):
    """A bottleneck with codes: `forward` quantises latents `(..., D)`, `lookup` gives back the rows of codes."""

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """One size per codebook."""
        raise NotImplementedError

    def lookup(self, codes: Tensor) -> Tensor:
        """Rows `(..., D)` of int64 `codes`."""
        raise NotImplementedError

    def forward(self, latents: Tensor) -> Quantized:
        """Quantise `latents` `(..., D)`."""
        raise NotImplementedError


class VectorQuantizer(Quantizer):
    """The nearest codebook row by squared Euclidean distance (VQ-VAE, arXiv 1711.00937, eq. 1-3).

    Ties go to the lowest index. It computes in float32 at least, also under autocast: half precision
    would choose other codes.

    Args:
        codebook_size: Number of rows K.
        dim: Width of a row, D.
        l2_norm: Compare on the unit sphere: latents and rows are normalised first (ViT-VQGAN, section 3.2).
        commitment_cost: Weight of the commitment term.
    """

    def __init__(self, codebook_size: int, dim: int, *, l2_norm: bool = False, commitment_cost: float = 0.25) -> None:
        super().__init__()
        self.l2_norm = l2_norm
        self.commitment_cost = commitment_cost
        rows = nn.init.uniform_(torch.empty(codebook_size, dim), -1.0 / codebook_size, 1.0 / codebook_size)
        self.embedding = nn.Embedding(codebook_size, dim, _weight=rows)

    @property
    def codebook_size(self) -> int:
        """Number of codes."""
        return self.embedding.num_embeddings

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """The only codebook's."""
        return (self.codebook_size,)

    def codebook(self) -> Tensor:
        """The rows that codes stand for, `(K, D)`: normalised where the quantizer normalises."""
        rows = at_least_float32(self.embedding.weight)
        return functional.normalize(rows, dim=-1) if self.l2_norm else rows

    def lookup(self, codes: Tensor) -> Tensor:
        """Rows `(..., D)` of int64 `codes`."""
        return functional.embedding(codes, self.codebook())

    def forward(self, latents: Tensor) -> Quantized:
        """Quantise `latents` `(..., D)`."""
        with torch.autocast(latents.device.type, enabled=False):
            latents = at_least_float32(latents)
            if self.l2_norm:
                latents = functional.normalize(latents, dim=-1)
            codes = self._nearest(latents.detach())
            rows = self.lookup(codes)
            codebook_loss = (rows - latents.detach()).square().mean()
            commitment_loss = self.commitment_cost * (rows.detach() - latents).square().mean()
            straight_through = latents + (rows - latents).detach()
        return Quantized(codes, straight_through, codebook_loss, commitment_loss)

    def _nearest(self, latents: Tensor) -> Tensor:
        return nearest_rows(latents, self.codebook().detach())


def nearest_rows(latents: Tensor, rows: Tensor) -> Tensor:
    """Which of `rows` `(K, D)` is nearest to each of `latents` `(..., D)`, int64; ties go to the lowest index."""
    flat = latents.reshape(-1, latents.shape[-1])
    distances = flat.square().sum(1, keepdim=True) + rows.square().sum(1) - 2 * flat @ rows.T
    return distances.argmin(1).reshape(latents.shape[:-1])
