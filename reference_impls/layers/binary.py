"""Codes without a codebook: every channel of a latent becomes a bit, its sign."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from reference_impls.layers.precision import at_least_float32
from reference_impls.layers.quantizers import Quantized, Quantizer
from tokenmark.contracts import MethodError

__all__ = ["BinaryQuantizer", "EntropyLoss", "bits_of_codes", "codes_of_bits"]

MOST_BITS = 62
"""How many bits an int64 code can hold, with its sign left out and 2 ** bits still an int64."""


def codes_of_bits(bits: Tensor, *, most_significant_first: bool = False) -> Tensor:
    """Codes `(...)`, int64, of bits `(..., K)`, booleans or 0 and 1.

    Bit i counts 2 ** i unless the most significant is first. In integers: a sum of floats is wrong from 25 bits on in
    float32, and from 9 bits on in bfloat16.
    """
    return (bits.long() << _shifts(bits.shape[-1], bits.device, most_significant_first)).sum(-1)


def bits_of_codes(codes: Tensor, count: int, *, most_significant_first: bool = False) -> Tensor:
    """The `count` bits `(..., count)` of int64 codes `(...)`, int64 0 and 1: the inverse of `codes_of_bits`."""
    return (codes.unsqueeze(-1) >> _shifts(count, codes.device, most_significant_first)) & 1


def _shifts(count: int, device: torch.device, most_significant_first: bool) -> Tensor:
    shifts = torch.arange(count, device=device)
    return shifts.flip(0) if most_significant_first else shifts


@dataclass(frozen=True, slots=True, kw_only=True)
class EntropyLoss:
    """The entropy terms of lookup-free quantization (MAGVIT-v2, arXiv 2310.05737, eq. 5 and 6), in nats.

    A latent z chooses code c with probability softmax(-|z - c|^2 / temperature). Every token should be sure of its
    code, and all tokens together should use all codes: entropy per token, less that of the mean distribution.
    """

    weight: float
    temperature: float = 0.01
    gamma: float = 1.0
    """Weight of the second entropy within the difference."""
    group: int | None = None
    """Bits per group, whose entropies are summed in place of the mean distribution's own (BSQ, arXiv 2406.07548,
    section 3.2); None: all bits together. Memory grows as tokens times 2 ** (group / 2), and as 2 ** group."""

    def __call__(self, latents: Tensor, scale: float) -> Tensor:
        """The loss, a scalar, of latents `(..., K)` whose codes are +-scale in every channel."""
        # The bits are independent given z, so that a token's distribution is a product of K sigmoids.
        logits = latents.reshape(-1, latents.shape[-1]) * (4.0 * scale / self.temperature)
        chances = logits.sigmoid()
        per_token = (functional.softplus(logits) - logits * chances).sum(1).mean()
        groups = chances.split(self.group or chances.shape[1], dim=1)
        overall = torch.stack([_entropy_of_mean(group) for group in groups]).sum()
        return self.weight * (per_token - self.gamma * overall)


def _entropy_of_mean(chances: Tensor) -> Tensor:
    """Entropy of the mean over tokens of products of bits, whose chances of being one are `(T, K)`.

    The 2 ** K codes of a token are never written out: the mean is a matrix product of its two halves.
    """
    half = chances.shape[1] // 2
    mean = _joint(chances[:, :half]).T @ _joint(chances[:, half:]) / len(chances)
    mean = mean.clamp_min(torch.finfo(mean.dtype).tiny)
    return -(mean * mean.log()).sum()


def _joint(chances: Tensor) -> Tensor:
    """Probabilities `(T, 2 ** K)` of all words of K independent bits `(T, K)`."""
    joint = chances.new_ones(len(chances), 1)
    for chance in chances.unsqueeze(2).unbind(1):
        joint = torch.cat([joint * (1.0 - chance), joint * chance], dim=1)
    return joint


class BinaryQuantizer(Quantizer):
    """The sign of every channel, with straight-through gradients; zero counts as -1.

    Lookup-free quantization (MAGVIT-v2, arXiv 2310.05737, section 3.1), and binary spherical quantization (BSQ,
    arXiv 2406.07548, section 3.1) with `l2_norm` and `scale` 1 / sqrt(bits), which put latents and codes on the
    unit sphere. The entropy loss is computed where gradients are.

    Args:
        bits: Channels of a latent, K.
        l2_norm: Normalise latents first.
        scale: Codes are +-scale in every channel.
        most_significant_first: Whether the first channel is a code's most significant bit, and not its least.
        commitment_cost: Weight of the commitment term.
        entropy: What the entropy loss is, where there is one.
    """

    number: Tensor

    def __init__(
        self,
        bits: int,
        *,
        l2_norm: bool = False,
        scale: float = 1.0,
        most_significant_first: bool = False,
        commitment_cost: float = 0.25,
        entropy: EntropyLoss | None = None,
    ) -> None:
        super().__init__()
        if not 1 <= bits <= MOST_BITS:
            raise MethodError(f"a binary code must have 1 to {MOST_BITS} bits, got {bits}")
        self.bits, self.l2_norm, self.scale = bits, l2_norm, scale
        self.most_significant_first = most_significant_first
        self.commitment_cost, self.entropy = commitment_cost, entropy
        # There are no parameters that would follow .double().
        self.register_buffer("number", torch.empty(0), persistent=False)

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """One codebook, which is nowhere written out."""
        return (2**self.bits,)

    def lookup(self, codes: Tensor) -> Tensor:
        """Rows `(..., K)` of +-scale of int64 `codes`, float32 or wider."""
        bits = bits_of_codes(codes, self.bits, most_significant_first=self.most_significant_first)
        return (2 * bits - 1).to(at_least_float32(self.number).dtype) * self.scale

    def forward(self, latents: Tensor) -> Quantized:
        """Quantise `latents` `(..., K)`."""
        with torch.autocast(latents.device.type, enabled=False):
            latents = at_least_float32(latents)
            if self.l2_norm:
                latents = functional.normalize(latents, dim=-1)
            positive = latents > 0
            codes = codes_of_bits(positive, most_significant_first=self.most_significant_first)
            rows = (2 * positive.to(latents.dtype) - 1) * self.scale
            commitment_loss = self.commitment_cost * (rows - latents).square().mean()
            entropy_loss = latents.new_zeros(())
            if self.entropy is not None and torch.is_grad_enabled():
                entropy_loss = self.entropy(latents, self.scale)
            straight_through = latents + (rows - latents).detach()
        return Quantized(codes, straight_through, latents.new_zeros(()), commitment_loss, entropy_loss)
