"""VQGAN as CompVis released it: with the nearest code, and as the Gumbel variant, which draws its codes."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.gaussian import draw_exponential
from reference_impls.layers.grid_vq import GridVQ, as_grid, as_rows
from reference_impls.layers.ldm_conv import LdmDecoder, LdmEncoder, LdmSize, attention_levels
from reference_impls.layers.precision import at_least_float32
from reference_impls.layers.quantizers import Quantized, Quantizer, VectorQuantizer
from reference_impls.layers.token_checks import need_noise, pack_codes
from reference_impls.layers.tokenizer import to_signed
from tokenmark.contracts import Layout, MethodError, Paper, TokenizerMethod, Tokens, Variant

__all__ = ["METHOD", "VQGAN", "GumbelQuantizer", "network_arguments", "release_arguments"]


class GumbelQuantizer(Quantizer):
    """Codes by the largest of learned logits, with Gumbel noise on them or without (arXiv 1611.01144, eq. 1-2).

    Args:
        codebook_size: Number of codes, K.
        dim: Width of latents and of codes, D.
        kl_weight: Weight of the codes' divergence from the uniform distribution, the loss.
    """

    def __init__(self, codebook_size: int, dim: int, *, kl_weight: float = 5e-4) -> None:
        super().__init__()
        self.kl_weight = kl_weight
        self.proj = nn.Conv2d(dim, codebook_size, 1)
        self.embed = nn.Embedding(codebook_size, dim)

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """The only codebook's."""
        return (self.embed.num_embeddings,)

    def lookup(self, codes: Tensor) -> Tensor:
        """Rows `(..., D)` of int64 `codes`."""
        return functional.embedding(codes, at_least_float32(self.embed.weight))

    def logits(self, latents: Tensor) -> Tensor:
        """Logits `(..., K)` of latents `(..., D)`, in float32 at least."""
        with torch.autocast(latents.device.type, enabled=False):
            weight, bias = (at_least_float32(part) for part in self.proj.parameters())
            return functional.linear(at_least_float32(latents), weight.flatten(1), bias)

    def forward(self, latents: Tensor, noise: Tensor | None = None) -> Quantized:
        """Quantise `latents` `(..., D)`; `noise` `(..., K)` is drawn from Exponential(1). The temperature is 1."""
        logits = self.logits(latents)
        with torch.autocast(latents.device.type, enabled=False):
            log_shares = logits.log_softmax(-1)
            noisy = logits if noise is None else logits - noise.log()
            codes = noisy.argmax(-1)
            soft = noisy.softmax(-1) @ at_least_float32(self.embed.weight)
            quantized = soft + (self.lookup(codes) - soft).detach()
            divergence = (log_shares.exp() * (log_shares - logits.new_tensor(1 / logits.shape[-1]).log())).sum(-1)
        return Quantized(codes, quantized, self.kl_weight * divergence.mean(), logits.new_zeros(()))


class VQGAN(GridVQ):
    """VQGAN (arXiv 2012.09841, section 3.1), with the release's keys.

    Args:
        image_size: Side of the images, in pixels.
        ch: Width that `ch_mult` multiplies.
        ch_mult: One factor per level, finest first.
        num_res_blocks: Residual blocks per level of the encoder.
        attn_levels: Levels, 0 the finest, with attention behind every residual block.
        z_channels: Channels between the networks and the bottleneck.
        codebook_size: Number of codes.
        codebook_dim: Width of a code.
        gumbel: Draw codes from learned logits; then `codebook_dim` is `z_channels`.
        in_channels: Channels that go into the encoder: 3, but for networks of other data.
        out_channels: Channels that come out of the decoder.
    """

    def __init__(
        self,
        *,
        image_size: int,
        ch: int = 128,
        ch_mult: Sequence[int],
        num_res_blocks: int = 2,
        attn_levels: Collection[int],
        z_channels: int = 256,
        codebook_size: int,
        codebook_dim: int = 256,
        gumbel: bool = False,
        in_channels: int = 3,
        out_channels: int = 3,
    ) -> None:
        if gumbel and codebook_dim != z_channels:
            # Quirk of the release: the Gumbel bottleneck's projection is z_channels wide, whatever it is fed.
            raise MethodError(f"a Gumbel bottleneck needs codebook_dim {z_channels} (z_channels), got {codebook_dim}")
        size = LdmSize(ch=ch, ch_mult=ch_mult, num_res_blocks=num_res_blocks, z_channels=z_channels)
        bottleneck = GumbelQuantizer if gumbel else VectorQuantizer
        super().__init__(
            image_size=image_size,
            factor=size.factor,
            encoder=LdmEncoder(size, attn_levels, in_channels=in_channels),
            decoder=LdmDecoder(size, attn_levels, out_channels=out_channels),
            quantize=bottleneck(codebook_size, codebook_dim),
            quant_conv=nn.Conv2d(z_channels, codebook_dim, 1),
            post_quant_conv=nn.Conv2d(codebook_dim, z_channels, 1),
        )
        # The release adds Gumbel noise in evaluation too (taming's GumbelQuantize calls gumbel_softmax always).
        self.stochastic = gumbel

    def _encode(self, images: Tensor, tokens: int | None, generator: torch.Generator | None) -> Tokens:
        if not isinstance(self.quantize, GumbelQuantizer):
            return super()._encode(images, tokens, generator)
        logits = self.quantize.logits(as_rows(self.encode_grid(to_signed(images))))
        # One image's noise lies as (K, h, w), as the release draws it.
        noise = draw_exponential(as_grid(logits, self.grid), need_noise(generator, "encode"))
        return pack_codes((logits - as_rows(noise).log()).argmax(-1), self.codebook_sizes)


def network_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """What taming's `ddconfig`, `n_embed` and `embed_dim` say of a `VQGAN`; attention goes by nominal resolutions."""
    network = config["ddconfig"]
    levels = attention_levels(len(network["ch_mult"]), network["resolution"], network["attn_resolutions"])
    return {
        "image_size": network["resolution"],
        "ch": network["ch"],
        "ch_mult": network["ch_mult"],
        "num_res_blocks": network["num_res_blocks"],
        "attn_levels": levels,
        "z_channels": network["z_channels"],
        "codebook_size": config["n_embed"],
        "codebook_dim": config["embed_dim"],
    }


def channel_arguments(config: Mapping[str, Any]) -> dict[str, int]:
    """The channels of its images, where `ddconfig` names them."""
    names = {"in_channels": "in_channels", "out_channels": "out_ch"}
    return {ours: config["ddconfig"][theirs] for ours, theirs in names.items() if theirs in config["ddconfig"]}


def release_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `VQGAN` for a release's `model.yaml`, or for the `params` in it."""
    model = config.get("model", {})
    return {
        **network_arguments(model.get("params", config)),
        **channel_arguments(model.get("params", config)),
        "gumbel": str(model.get("target", "")).endswith("GumbelVQ"),
    }


F16: Mapping[str, Any] = {"image_size": 256, "ch_mult": (1, 1, 2, 2, 4), "attn_levels": (4,)}
NOTE = "weights: see CompVis/taming-transformers; copies on the hub in markweber/taming_vqgan"

METHOD = TokenizerMethod(
    id="vqgan",
    title="VQGAN",
    idea="A convolutional VQ autoencoder, trained with a perceptual loss and a discriminator, gives a grid of codes",
    paper=Paper(
        title="Taming Transformers for High-Resolution Image Synthesis",
        authors="Patrick Esser, Robin Rombach, Björn Ommer",
        year=2021,
        url="https://arxiv.org/abs/2012.09841",
    ),
    build=VQGAN,
    from_release=release_arguments,
    layout=Layout(wrappers=("state_dict",), ignored=("loss.",)),
    variants={
        "imagenet-f16-1024": Variant(config={**F16, "codebook_size": 1024}, note=NOTE),
        "imagenet-f16-16384": Variant(config={**F16, "codebook_size": 16384}, note=NOTE),
        "gumbel-f8-8192": Variant(
            config={
                "image_size": 256,
                "ch_mult": (1, 1, 2, 4),
                "attn_levels": (3,),
                "codebook_size": 8192,
                "gumbel": True,
            },
            note=f"{NOTE}; sizes as widely quoted, for the repository does not hold them",
        ),
    },
)
