"""Semanticist: an image as ordered slots that a diffusion transformer decodes, the most telling first."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from reference_impls.layers.diffusion import RespacedDiffusion, guide, linear_betas, respaced_steps
from reference_impls.layers.gaussian import draw_noise
from reference_impls.layers.kl_autoencoder import KlAutoencoder, from_diffusers
from reference_impls.layers.ldm_conv import DIFFUSERS
from reference_impls.layers.precision import at_least_float32
from reference_impls.layers.slot_vit import Places, SlotDiT, SlotEncoder
from reference_impls.layers.token_checks import LATENT_BITS, check_latents, need_noise, pack_latents
from reference_impls.layers.tokenizer import ImageTokenizer, from_signed, latents_of
from tokenmark.contracts import Layout, MethodError, Paper, Release, TokenizerMethod, Tokens, Variant

__all__ = ["METHOD", "Semanticist", "release_arguments"]

TRAINING_STEPS = 1000


class Semanticist(ImageTokenizer):
    """Semanticist (arXiv 2503.08685, section 3): continuous slots of which any first few decode.

    `decode` starts from noise and samples VAE latents; slots that were not given are blanks.

    Args:
        image_size: Side of the images, in pixels.
        vae: Arguments of `KlAutoencoder`, whose latents the decoder samples.
        vae_scale: What the VAE's latents are multiplied by.
        encoder: `patch_size`, `width`, `depth` and `heads` of the slots' encoder.
        dit: The same of the decoder, its patches in latents.
        num_slots: Number of slots, N.
        slot_dim: Channels of a slot.
        causal: Whether a slot sees only the slots before it.
        norm_slots: Standardise every slot.
        sampling_steps: Steps of the sampler, as `layers.diffusion.respaced_steps` takes them.
        cfg_scale: Guidance of the sampler; 1 is none.
    """

    variable_length = True
    draws_to_decode = True

    def __init__(
        self,
        *,
        image_size: int,
        vae: Mapping[str, Any],
        vae_scale: float,
        encoder: Mapping[str, int],
        dit: Mapping[str, int],
        num_slots: int,
        slot_dim: int,
        causal: bool = True,
        norm_slots: bool = True,
        sampling_steps: str | int = 250,
        cfg_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.image_size, self.max_tokens, self.slot_dim = image_size, num_slots, slot_dim
        self.norm_slots, self.vae_scale, self.cfg_scale = norm_slots, vae_scale, cfg_scale
        self.vae = KlAutoencoder(**vae)
        if image_size % encoder["patch_size"] or image_size % (self.vae.factor * dit["patch_size"]):
            raise MethodError(f"image_size {image_size} is not a multiple of the patches' sizes")
        self.grid = image_size // self.vae.factor
        self.encoder = SlotEncoder(image_size=image_size, slots=num_slots, causal=causal, **encoder)
        self.encoder2slot = nn.Linear(encoder["width"], slot_dim)
        channels = self.vae.z_channels
        self.dit = SlotDiT(grid=self.grid, channels=channels, slots=num_slots, slot_dim=slot_dim, **dit)
        self.nested_sampler = Places(num_slots)
        self.diffusion = RespacedDiffusion(linear_betas(TRAINING_STEPS), respaced_steps(TRAINING_STEPS, sampling_steps))

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """There are none."""
        return ()

    @property
    def bits_per_token(self) -> float:
        """A slot's channels as float32."""
        return float(LATENT_BITS * self.slot_dim)

    def _check_tokens(self, tokens: Tokens) -> None:
        check_latents(tokens, self.max_tokens, self.slot_dim, variable=True)

    def _encode(self, images: Tensor, tokens: int | None, generator: torch.Generator | None) -> Tokens:  # noqa: ARG002
        return pack_latents(self.encode_slots(images)[:, :tokens])

    def _decode(self, tokens: Tokens, generator: torch.Generator | None, text: Tensor | None) -> Tensor:  # noqa: ARG002
        given = latents_of(tokens).to(self.number_type)
        slots = nn.functional.pad(given, (0, 0, 0, self.max_tokens - given.shape[1]))
        lengths = tokens.lengths.to(slots.device).clamp(max=given.shape[1])
        keep = self.nested_sampler(lengths)
        steps = (len(self.diffusion.steps), self.vae.z_channels, self.grid, self.grid)
        noise = draw_noise(slots.new_empty(len(slots), *steps), need_noise(generator, "decode"))
        latents = self.sample(slots, keep, noise[:, 0], noise[:, 1:].unbind(1), self.cfg_scale)
        return self.decode_vae(latents)

    def encode_slots(self, images: Tensor) -> Tensor:
        """Differentiable: slots `(B, N, slot_dim)` of images `(B, 3, S, S)` in [0, 1]."""
        return self.normalised(self.encoder2slot(self.encoder(images)))

    def normalised(self, slots: Tensor) -> Tensor:
        """Slots as the decoder takes them: each with mean 0 and variance 1, where the release does so."""
        if not self.norm_slots:
            return slots
        centred = at_least_float32(slots)
        centred = centred - centred.mean(-1, keepdim=True)
        # Unbiased, and nothing added to the deviation, as in the release.
        return centred / (centred.square().sum(-1, keepdim=True) / (self.slot_dim - 1)).sqrt()

    def sample(
        self, slots: Tensor, keep: Tensor, start: Tensor, noises: Iterable[Tensor], cfg_scale: float = 1.0
    ) -> Tensor:
        """Scaled VAE latents `(B, C, h, w)` of slots `(B, N, slot_dim)`, those where `keep` `(B, N)` is False left out.

        `start` is standard normal noise shaped as the latents; so are `noises`, one for each step but the last.
        """
        told = self.dit.told(slots, keep)
        if cfg_scale == 1.0:
            return self.diffusion.sample(lambda x, times: self.dit(x, times, told), start, noises)
        both = torch.cat([told, self.dit.untold(len(told))])

        def guided(x: Tensor, times: Tensor) -> Tensor:
            told_part, untold_part = self.dit(x.repeat(2, 1, 1, 1), times.repeat(2), both).chunk(2)
            return guide(told_part, untold_part, cfg_scale, self.vae.z_channels)

        return self.diffusion.sample(guided, start, noises)

    def decode_vae(self, latents: Tensor) -> Tensor:
        """Images in [0, 1], not clamped, of scaled VAE latents `(B, C, h, w)`."""
        return from_signed(at_least_float32(self.vae.decode((latents / self.vae_scale).to(self.number_type))))


def release_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `Semanticist` for the release's configuration, with its parts' sizes spelled out."""
    return {
        "image_size": config["image_size"],
        "vae": from_diffusers(config["vae"]),
        "vae_scale": config["vae"]["scaling_factor"],
        "encoder": _sizes(config["encoder"]),
        "dit": _sizes(config["dit"]),
        "num_slots": config["num_slots"],
        "slot_dim": config["slot_dim"],
        "causal": config["enc_causal"],
        "norm_slots": config["norm_slots"],
        "sampling_steps": config["num_sampling_steps"],
    }


def _sizes(part: Mapping[str, Any]) -> dict[str, int]:
    names = {"patch_size": "patch_size", "width": "dim", "depth": "depth", "heads": "heads"}
    return {own: part[name] for own, name in names.items()}


KL16: Mapping[str, Any] = {
    "ch": 128,
    "ch_mult": [1, 1, 2, 2, 4],
    "num_res_blocks": 2,
    "z_channels": 16,
    "encoder_attention": [4],
    "attention": "linear",
    "running_order": True,
}
"""MAR's VAE in diffusers' form."""


def _variant(name: str, width: int, depth: int) -> Variant:
    config = {
        "image_size": 256,
        "vae": KL16,
        "vae_scale": 0.2325,
        "encoder": {"patch_size": 16, "width": 768, "depth": 12, "heads": 12},
        "dit": {"patch_size": 2, "width": width, "depth": depth, "heads": 16},
        "num_slots": 256,
        "slot_dim": 16,
    }
    release = Release("tennant/semanticist", f"semanticist_tok_{name}.pkl", licence="MIT")
    return Variant(config=config, release=release, note="guidance is off unless cfg_scale says otherwise")


METHOD = TokenizerMethod(
    id="semanticist",
    title="Semanticist",
    idea="A diffusion decoder told by the first few slots only makes slots principal components, in falling weight",
    paper=Paper(
        title='"Principal Components" Enable A New Language of Images',
        authors="Xin Wen, Bingchen Zhao, Ismail Elezi, Jiankang Deng, Xiaojuan Qi",
        year=2025,
        url="https://arxiv.org/abs/2503.08685",
    ),
    build=Semanticist,
    from_release=release_arguments,
    layout=Layout(
        wrappers=("ema", "model", "state_dict"),
        ignored=("repa_encoder.", "dit.projector."),
        renames=((r"_orig_mod\.", ""), *DIFFUSERS),
    ),
    variants={"l": _variant("L", 1024, 24), "xl": _variant("XL", 1152, 28)},
)
