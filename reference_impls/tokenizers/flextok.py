"""FlexTok: an image as a sequence of registers of which any beginning can be decoded, by a rectified flow."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from reference_impls.layers.dit_blocks import unpatchify
from reference_impls.layers.flextok_vit import FlexDecoder, FlexEncoder, FlexSize, as_patches
from reference_impls.layers.flow import AdaptiveProjectedGuidance, classifier_free, euler, uniform_times
from reference_impls.layers.fsq import FiniteScalarQuantizer
from reference_impls.layers.gaussian import DiagonalGaussian, draw_noise
from reference_impls.layers.kl_autoencoder import KlAutoencoder, from_diffusers
from reference_impls.layers.ldm_conv import DIFFUSERS
from reference_impls.layers.precision import at_least_float32
from reference_impls.layers.quantizers import Quantized
from reference_impls.layers.token_checks import need_noise, pack_codes
from reference_impls.layers.tokenizer import CodeTokenizer, codes_of, from_signed, to_signed
from tokenmark.contracts import Layout, MethodError, Paper, Release, TokenizerMethod, Tokens, Variant

__all__ = ["METHOD", "FlexTok", "release_arguments"]

Guidance: TypeAlias = Literal["apg", "cfg"]


class FlexTok(CodeTokenizer):
    """FlexTok (arXiv 2502.13967) with its VAE: images to registers, registers to images by guided sampling.

    Args:
        image_size: Side of the images, in pixels.
        vae: Arguments of `KlAutoencoder`.
        encoder: Fields of `FlexSize`.
        decoder: Fields of `FlexSize`.
        num_registers: Most tokens of an image.
        fsq_levels: Levels of every channel of a token.
        scaling_factor: What the VAE's latents are multiplied by; None where it is not known: nothing is coded then.
        max_timestep: The decoder's times, which are in [0, 1], are multiplied by 1000 over this for their sinusoids.
        patch_size: Latents of a side of a patch.
        sample_posterior: Whether the VAE's latents are drawn, as upstream does unless told otherwise
            (`vae_wrapper.py`), or their mean is taken.
        sample_steps: Steps of the decoder (20 in the README).
        guidance: "apg" (arXiv 2410.02416; the README's) or "cfg" (classifier-free).
        guidance_scale: 1 is none (7.5 in the README).
    """

    variable_length = True
    draws_to_decode = True

    def __init__(
        self,
        *,
        image_size: int,
        vae: Mapping[str, Any],
        encoder: Mapping[str, Any],
        decoder: Mapping[str, Any],
        num_registers: int,
        fsq_levels: Sequence[int],
        scaling_factor: float | None = None,
        max_timestep: float = 1.0,
        patch_size: int = 2,
        sample_posterior: bool = True,
        sample_steps: int = 20,
        guidance: Guidance = "apg",
        guidance_scale: float = 7.5,
    ) -> None:
        super().__init__()
        self.vae = KlAutoencoder(**vae)
        cell = self.vae.factor * patch_size
        if image_size % cell:
            raise MethodError(f"image_size must be a multiple of {cell}, got {image_size}")
        if sample_steps < 1:
            raise MethodError(f"sample_steps must be at least 1, got {sample_steps}")
        self.image_size, self.grid, self.patch_size = image_size, image_size // cell, patch_size
        self.max_tokens, self.stochastic, self.scaling_factor = num_registers, sample_posterior, scaling_factor
        self.sample_steps, self.guidance, self.guidance_scale = sample_steps, guidance, guidance_scale
        self.quantize = FiniteScalarQuantizer(fsq_levels)
        sizes = {
            "patch_values": self.vae.z_channels * patch_size**2,
            "grid": self.grid,
            "registers": num_registers,
        }
        self.encoder = FlexEncoder(FlexSize(**encoder), **sizes, outputs=len(fsq_levels))
        self.decoder = FlexDecoder(FlexSize(**decoder), **sizes, inputs=len(fsq_levels), max_timestep=max_timestep)

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """The product of the levels."""
        return self.quantize.codebook_sizes

    def _encode(self, images: Tensor, tokens: int | None, generator: torch.Generator | None) -> Tokens:
        posterior = self.posterior(to_signed(images))
        latents = posterior.mean
        if self.stochastic:
            latents = posterior.sample(draw_noise(latents, need_noise(generator, "encode")))
        return pack_codes(self.quantize_latents(latents * self.scale).codes[:, :tokens], self.codebook_sizes)

    def _decode(self, tokens: Tokens, generator: torch.Generator | None, text: Tensor | None) -> Tensor:  # noqa: ARG002
        side = self.grid * self.patch_size
        codes = codes_of(tokens)
        shape = (len(codes), self.vae.z_channels, side, side)
        like = torch.empty(shape, dtype=self.number_type, device=codes.device)
        noise = draw_noise(like, need_noise(generator, "decode"))
        registers = self.registers(self.quantize.lookup(codes), tokens.lengths.to(codes.device))
        return from_signed(self.decode_scaled(self.sample(registers, noise)))

    def posterior(self, signed: Tensor) -> DiagonalGaussian:
        """The VAE's Gaussian `(B, z, h, w)`, not scaled, of images in [-1, 1]."""
        return self.vae.posterior(signed)

    def encode_latents(self, latents: Tensor) -> Tensor:
        """Differentiable: what is quantised, `(B, N, D)`, of scaled latents `(B, z, h, w)`."""
        vectors: Tensor = self.encoder(as_patches(latents.to(self.number_type), self.patch_size))
        return vectors

    def quantize_latents(self, latents: Tensor) -> Quantized:
        """Differentiable: scaled latents `(B, z, h, w)` to quantised vectors `(B, N, D)`."""
        quantized: Quantized = self.quantize(self.encode_latents(latents))
        return quantized

    def registers(self, quantized: Tensor, keep: Tensor | None = None) -> Tensor:
        """What the decoder is told, of quantised vectors `(B, n, D)`, only `keep` (int64, `(B,)`) of each image."""
        return self.decoder.condition(quantized.to(self.number_type), keep)

    def velocity(self, noisy: Tensor, time: float, registers: Tensor) -> Tensor:
        """Differentiable: noise minus latents, `(B, z, h, w)`, that the decoder sees at a time in [0, 1]."""
        times = torch.full((len(noisy),), time, dtype=noisy.dtype, device=noisy.device)
        patches = self.decoder(as_patches(noisy.to(self.number_type), self.patch_size), times, registers)
        return unpatchify(patches, self.patch_size, self.grid)

    def sample(self, registers: Tensor, noise: Tensor) -> Tensor:
        """Scaled latents of registers, from given noise `(B, z, h, w)`, with the tokenizer's steps and guidance."""
        if self.guidance_scale == 1.0:
            return euler(lambda x, time: self.velocity(x, time, registers), noise, uniform_times(self.sample_steps))
        both = torch.cat([registers, self.decoder.unconditional(registers)])
        projected = AdaptiveProjectedGuidance(self.guidance_scale)

        def guided(x: Tensor, time: float) -> Tensor:
            told, untold = self.velocity(torch.cat([x, x]), time, both).chunk(2)
            if self.guidance == "cfg":
                return classifier_free(told, untold, self.guidance_scale)
            return projected(told, untold)

        return euler(guided, noise, uniform_times(self.sample_steps))

    def decode_scaled(self, latents: Tensor) -> Tensor:
        """Differentiable: images in [-1, 1], not clamped, of scaled latents."""
        return at_least_float32(self.vae.decode((latents / self.scale).to(self.number_type)))

    @property
    def scale(self) -> float:
        """What the VAE's latents are multiplied by; MethodError where it is not known."""
        if self.scaling_factor is None:
            raise MethodError("the VAE's scaling_factor is not known: take it from the release's config.json")
        return self.scaling_factor


def release_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `FlexTok` for a release's configuration; MethodError where it is of another kind.

    The hub's `config.json` is a tree of modules whose wiring this fixes: of such a tree, only the two numbers that the
    weights do not show are taken, wherever they stand.
    """
    if "num_registers" not in config:
        found = {name: _named(config, name) for name in ("scaling_factor", "max_timestep")}
        return {name: value for name, value in found.items() if value is not None}
    if config.get("adaLN_expansion", 2) != 2:
        raise MethodError(f"adaLN_expansion must be 2 (patches and registers), got {config['adaLN_expansion']}")
    given = ("sample_steps", "guidance", "guidance_scale", "sample_posterior", "patch_size")
    return {
        "image_size": config["image_size"],
        "vae": from_diffusers(config["vae"]),
        "scaling_factor": config["vae"].get("scaling_factor"),
        "encoder": dict(config["encoder"]),
        "decoder": dict(config["decoder"]),
        "num_registers": config["num_registers"],
        "fsq_levels": config["fsq_levels"],
        "max_timestep": config["max_timestep"],
        **{name: config[name] for name in given if name in config},
    }


def _named(tree: Any, name: str) -> float | None:
    """The number that stands under a name in a tree of plain data, if there is one; MethodError if there are two."""
    values = set(_all_named(tree, name))
    if len(values) > 1:
        raise MethodError(f"the configuration gives several values of {name}: {sorted(values)}")
    return values.pop() if values else None


def _all_named(tree: Any, name: str) -> Iterator[float]:
    if isinstance(tree, Mapping):
        if isinstance(tree.get(name), int | float):
            yield float(tree[name])
        for branch in tree.values():
            yield from _all_named(branch, name)
    elif isinstance(tree, list):
        for branch in tree:
            yield from _all_named(branch, name)


LAYOUT = Layout(
    renames=(
        (r"^vae\.vae\.", "vae."),
        *DIFFUSERS,
        (r"^(encoder|decoder)\.module_dict\.(enc|dec)_", r"\1."),
        (r"\.(noise_)?patch_emb\.patch_proj\.", ".patch_proj."),
        (r"\.registers_posemb_module\.posembs$", ".register_positions"),
        (r"\.(patches_)?posemb_module\.posembs$", ".positions"),
        (r"\.register_module\.registers$", ".registers"),
        (r"\.nested_dropout\.dropout_mask_token$", ".mask_token"),
        (r"\.latent_dropout\.nullcond$", ".null_token"),
        (r"\.time_embedder\.", ".time."),
        (r"\.transformer\.blocks\.", ".blocks."),
        (r"\.mlp\.fc1\.", ".mlp.fc1_g."),
        (r"\.mlp\.fc3\.", ".mlp.fc1_x."),
        (r"\.(to|from)_latents\.proj\.", r".\1_latents."),
        (r"\.to_patches\.proj\.", ".head."),
        (r"\.to_patches\.adaLN_modulation\.", ".adaLN_modulation."),
    ),
)


def _variant(name: str, encoder_depth: int, decoder_depth: int) -> Variant:
    depths = {"encoder": encoder_depth, "decoder": decoder_depth}
    return Variant(
        config={
            "image_size": 256,
            "vae": from_diffusers(
                {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "latent_channels": 16}
            ),
            **{side: {"dim": 64 * depth, "depth": depth, "head_dim": 64} for side, depth in depths.items()},
            "num_registers": 256,
            "fsq_levels": [8, 8, 8, 5, 5, 5],
        },
        release=Release(f"EPFL-VILAB/flextok_{name}", licence="Apple ML Research Model Licence"),
        note="scaling_factor and max_timestep are read from a config.json beside the weights",
    )


METHOD = TokenizerMethod(
    id="flextok",
    title="FlexTok",
    idea="Nested registers, 1 to 256 of them, tell a rectified flow what to draw: few say what, more say how",
    paper=Paper(
        title="FlexTok: Resampling Images into 1D Token Sequences of Flexible Length",
        authors=(
            "Roman Bachmann, Jesse Allardice, David Mizrahi, Enrico Fini, Oğuzhan Fatih Kar, Elmira Amirloo,"
            " Alaaeldin El-Nouby, Amir Zamir, Afshin Dehghan"
        ),
        year=2025,
        url="https://arxiv.org/abs/2502.13967",
    ),
    build=FlexTok,
    from_release=release_arguments,
    layout=LAYOUT,
    variants={
        "d12-d12-in1k": _variant("d12_d12_in1k", 12, 12),
        "d18-d18-in1k": _variant("d18_d18_in1k", 18, 18),
        "d18-d28-in1k": _variant("d18_d28_in1k", 18, 28),
        "d18-d28-dfn": _variant("d18_d28_dfn", 18, 28),
    },
)
