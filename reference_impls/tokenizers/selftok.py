"""Selftok: tokens that a diffusion model is shown one after the other as its noise grows."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reference_impls.layers.apart import keep_apart
from reference_impls.layers.flow import euler
from reference_impls.layers.gaussian import draw_noise
from reference_impls.layers.kl_autoencoder import KlAutoencoder, from_diffusers
from reference_impls.layers.ldm_conv import DIFFUSERS
from reference_impls.layers.mmdit import PATCH, MMDiT, MMDiTSize
from reference_impls.layers.precision import at_least_float32
from reference_impls.layers.selftok_encoder import QueryEncoder
from reference_impls.layers.token_checks import need_noise
from reference_impls.layers.tokenizer import CodeTokenizer, codes_of, from_signed, to_signed
from tokenmark.contracts import Layout, MethodError, Paper, Part, Release, TokenizerMethod, Tokens, Variant

__all__ = ["METHOD", "Selftok", "release_arguments"]

SCALE, SHIFT = 1.5305, 0.0609
"""Stable Diffusion 3's latents are shifted down, then scaled up by these."""
TRAINING_STEPS = 100
"""Of the flow's schedule, whose tables a checkpoint carries along."""


class Selftok(CodeTokenizer):
    """Selftok (arXiv 2505.07538): 512 codes of SD3's latents, and a decoder that starts from noise or renders at once.

    Args:
        image_size: Side of the images, in pixels.
        vae: Arguments of `KlAutoencoder`: Stable Diffusion 3's.
        separate_vae: Whether the VAE's weights are kept apart, as in the releases: it is then no part of the state
            dict, and `load_part` must bring them before images can be coded.
        tokens: Number of tokens K.
        stages: Times, of 1000, at which the stages end.
        tokens_per_stage: How many tokens each stage adds to those that the decoder is shown; K together.
        codebook_size: Number of codes.
        code_dim: Channels of a code.
        encoder: `dim`, `heads`, `depth`, `query_dim` and `query_heads` of `QueryEncoder`.
        decoder_depth: Blocks and heads of the decoder; its width is 64 times that.
        pos_embed_max_size: Side of SD3's table of positions.
        renderer: Whether the decoder gives the latents in one pass, without noise.
        sample_steps: Steps of the decoder otherwise.
    """

    def __init__(
        self,
        *,
        image_size: int,
        vae: Mapping[str, Any],
        separate_vae: bool = False,
        tokens: int,
        stages: Sequence[int],
        tokens_per_stage: Sequence[int],
        codebook_size: int,
        code_dim: int,
        encoder: Mapping[str, int],
        decoder_depth: int,
        pos_embed_max_size: int,
        renderer: bool = False,
        sample_steps: int = 50,
    ) -> None:
        super().__init__()
        self.vae, self.vae_loaded = KlAutoencoder(**vae), not separate_vae
        cell = self.vae.factor * PATCH
        if image_size % cell or image_size // cell > pos_embed_max_size:
            raise MethodError(
                f"image_size must be a multiple of {cell} up to {cell * pos_embed_max_size}: {image_size}"
            )
        if len(stages) != len(tokens_per_stage) or sum(tokens_per_stage) != tokens:
            raise MethodError(
                f"the stages must add up to {tokens} tokens, got {list(tokens_per_stage)} for {list(stages)}"
            )
        if sample_steps < 1:
            raise MethodError(f"sample_steps must be at least 1, got {sample_steps}")
        self.image_size, self.max_tokens, self.sample_steps = image_size, tokens, sample_steps
        self.stages, self.tokens_per_stage = tuple(stages), tuple(tokens_per_stage)
        self.renderer, self.draws_to_decode = renderer, not renderer
        self.side = image_size // self.vae.factor
        channels = self.vae.z_channels
        self.encoder = QueryEncoder(
            channels=channels, side=self.side, tokens=tokens, codebook_size=codebook_size, code_dim=code_dim, **encoder
        )
        self.model = MMDiT(
            MMDiTSize(
                depth=decoder_depth,
                channels=channels,
                grid=self.side // PATCH,
                tokens=tokens,
                code_dim=code_dim,
                pos_embed_max_size=pos_embed_max_size,
                renderer=renderer,
            )
        )
        self.diffusion = _training_schedule()
        if separate_vae:
            keep_apart(self, "vae")

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """One."""
        return (self.encoder.quantizer.codebook_size,)

    def load_part(self, name: str, tensors: Mapping[str, Tensor]) -> None:  # noqa: ARG002  there is one
        """Take over Stable Diffusion 3's VAE under diffusers' keys (strictly)."""
        layout = Layout(renames=DIFFUSERS)
        self.vae.load_state_dict({layout.module_key(key): value for key, value in tensors.items()})
        self.vae_loaded = True

    def draw_parts(self) -> None:
        """Take the drawn weights for the VAE's: good for timing alone."""
        self.vae_loaded = True

    def encode_codes(self, images: Tensor) -> Tensor:
        """Codes `(B, K)`, of the mode of the VAE's Gaussian."""
        latents = (self._vae().posterior(to_signed(images)).mean - SHIFT) * SCALE
        return self.encoder.quantizer.codes(self.encoder.project(self.encoder(latents.to(self.number_type))))

    def _decode(self, tokens: Tokens, generator: torch.Generator | None, text: Tensor | None) -> Tensor:  # noqa: ARG002
        vae, quantized = self._vae(), self.encoder.lookup(codes_of(tokens)).to(self.number_type)
        if self.renderer:
            latents = self.model.render(quantized)
        else:
            like = quantized.new_empty(len(quantized), vae.z_channels, self.side, self.side)
            latents = self.sample(quantized, draw_noise(like, need_noise(generator, "decode")))
        return from_signed(at_least_float32(vae.decode((latents / SCALE + SHIFT).to(self.number_type))))

    def last_token(self, time: int) -> int:
        """The last token, from 0 on, that the decoder is shown at a time of 1000, in whole numbers (section 3.3)."""
        ends, before, found = [0, *self.stages], 0, 0
        for (start, end), count in zip(pairwise(ends), self.tokens_per_stage, strict=True):
            if time >= start:
                found = before + count * (time - start) // (end - start)
            before += count
        return min(found, self.max_tokens - 1)

    def velocity(self, noisy: Tensor, time: float, quantized: Tensor) -> Tensor:
        """Noise minus latents, `(B, C, h, w)`, at a time in [0, 1], of all quantised tokens `(B, K, D)`."""
        shown = quantized[:, : self.last_token(thousandths(time)) + 1]
        times = torch.full((len(noisy),), 1000.0 * time, dtype=noisy.dtype, device=noisy.device)
        return self.model.velocity(noisy.to(self.number_type), times, shown)

    def times(self) -> list[float]:
        """The times of the steps, from 1 to 0: evenly spaced float32 numbers."""
        return [float(time) for time in torch.linspace(1.0, 0.0, self.sample_steps + 1, device="cpu")]

    def sample(self, quantized: Tensor, noise: Tensor) -> Tensor:
        """Latents of quantised tokens, from given noise `(B, C, h, w)`."""
        return euler(lambda x, time: self.velocity(x, time, quantized), noise, self.times())

    def _vae(self) -> KlAutoencoder:
        if not self.vae_loaded:
            raise MethodError("the checkpoint leaves Stable Diffusion 3's VAE out: give load_part its weights")
        return self.vae


def thousandths(time: float) -> int:
    """1000 times a time in [0, 1], cut to a whole number.

    Quirk: the release multiplies in float32, so that 0.58 comes to 579 or to 580 by its rounding.
    """
    return int(np.float32(time) * np.float32(1000.0))


def _training_schedule() -> nn.Module:
    """The tables of the flow that trained it, which are of no use here."""
    times = torch.linspace(1.0, 0.0, TRAINING_STEPS + 1)
    tables = {
        "timestep_map": 1000.0 * times[:-1],
        "scheduled_t": times[:-1],
        "scheduled_t_prev": times[1:],
        "one_minus_scheduled_t": 1.0 - times[:-1],
    }
    holder = nn.Module()
    for name, values in tables.items():
        holder.register_buffer(name, values.clone())
    return holder


def release_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `Selftok` for the sizes in a release's configuration."""
    decoder = config["decoder"]
    return {
        "image_size": config["image_size"],
        "vae": sd3_vae(config["in_channels"]),
        "separate_vae": True,
        "tokens": config["K"],
        "stages": _numbers(config["stages"]),
        "tokens_per_stage": _numbers(config["k_per_stage"]),
        "codebook_size": config["codebook_size"],
        "code_dim": config["code_dim"],
        "encoder": dict(config["encoder"]),
        "decoder_depth": decoder["depth"],
        "pos_embed_max_size": decoder["pos_embed_max_size"],
        "renderer": decoder.get("renderer", False),
        "sample_steps": config["sample_steps"],
    }


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def sd3_vae(channels: int = 16) -> dict[str, Any]:
    """Arguments of `KlAutoencoder` for Stable Diffusion 3's VAE (arXiv 2403.03206, appendix), 8 pixels to a latent."""
    config = {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "use_quant_conv": False}
    return from_diffusers({**config, "latent_channels": channels})


SD3_VAE = Part(
    "part-sd3-medium-vae",
    Release(
        "stabilityai/stable-diffusion-3-medium-diffusers",
        "vae/diffusion_pytorch_model.safetensors",
        licence="Stability AI Community",
    ),
)
"""Where the VAE's weights are."""


def _variant(file: str, stages: Sequence[int], tokens_per_stage: Sequence[int], *, renderer: bool) -> Variant:
    return Variant(
        config={
            "image_size": 256,
            "vae": sd3_vae(),
            "separate_vae": True,
            "tokens": sum(tokens_per_stage),
            "stages": stages,
            "tokens_per_stage": tokens_per_stage,
            "codebook_size": 32768,
            "code_dim": 16,
            "encoder": {"dim": 64, "heads": 4, "depth": 16, "query_dim": 512, "query_heads": 8},
            "decoder_depth": 24,
            "pos_embed_max_size": 192,
            "renderer": renderer,
        },
        release=Release("selftok-team/SelftokTokenizer", file, licence="MIT"),
        parts=(SD3_VAE,),
        note="its VAE is Stable Diffusion 3's, whose repository is gated",
    )


METHOD = TokenizerMethod(
    id="selftok",
    title="Selftok",
    idea="A token for every stretch of the diffusion: the more noise there is, the more tokens the decoder is shown",
    paper=Paper(
        title="Selftok: Discrete Visual Tokens of Autoregression, by Diffusion, and for Reasoning",
        authors=(
            "Bohan Wang, Zhongqi Yue, Fengda Zhang, Shuo Chen, Li'an Bi, Junzhe Zhang, Xue Song, Kennard Yanting Chan,"
            " Jiachun Pan, Weijia Wu, Mingze Zhou, Wang Lin, Kaihang Pan, Saining Zhang, Liyu Jia, Wentao Hu, Wei Zhao,"
            " Hanwang Zhang"
        ),
        year=2025,
        url="https://arxiv.org/abs/2505.07538",
    ),
    build=Selftok,
    from_release=release_arguments,
    layout=Layout(
        renames=(
            (r"\.x_embedder\.proj\.", ".x_embedder."),
            (r"\.(context|x)_block\.attn\.", r".\1_block."),
            (r"\.quantizer\._codebook\.", ".quantizer."),
        )
    ),
    variants={
        "tokenizer-512": _variant(
            "tokenizer_512_ckpt.pth", [200, 400, 600, 800, 1000], [192, 184, 72, 48, 16], renderer=False
        ),
        "renderer-512": _variant("renderer_512_ckpt.pth", [1000], [512], renderer=True),
    },
)
