"""Layton (later LaCTok): 256 tokens that lead a latent diffusion model to an image of 1024 pixels in one or two steps.

No release: built from the paper. (A demo's weights lie at huggingface.co/OPPOer/LaCTok; what is in its files is not
known here.) What the paper leaves open or tells in two ways, and what was taken:

- encoder: the abstract says "transformer encoder", the method that encoder and codebook are those of LlamaGen's VQ,
  frozen; these are taken (convolutions, with attention at the coarsest level);
- shrinking before it: bicubic, antialiased, to 224, 256 or 288 pixels: 196 (the paper prints 192), 256 or 324 tokens;
- the latent diffusion model: SDXL's U-Net and VAE, frozen;
- the joint: ControlNet's. A trainable copy of the contracting half sees the codes' rows, repeated to the latents' grid,
  and adds to the frozen half's skips through convolutions of zeros;
- text: the empty prompt's features and SDXL's size vector are constants (`context`, `vector`: zeros until filled);
- steps: "h" begins at 800, as Hyper-SD's one-step SDXL does; "t" takes 999 and 499. Between steps noise is added anew,
  as in consistency models; their weight of the noisy input, below 1e-7 at these times, is left out;
- the frozen U-Net is the student of Hyper-SD or TLCM, merged, and not SDXL with an adapter.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.gaussian import draw_noise
from reference_impls.layers.grid_vq import as_grid, as_rows
from reference_impls.layers.kl_autoencoder import KlAutoencoder
from reference_impls.layers.ldm_conv import LdmEncoder, LdmSize
from reference_impls.layers.precision import at_least_float32
from reference_impls.layers.quantizers import VectorQuantizer
from reference_impls.layers.text_unet import Control, TextUNet, UNetSize
from reference_impls.layers.token_checks import need_noise
from reference_impls.layers.tokenizer import CodeTokenizer, codes_of, from_signed, to_signed
from tokenmark.contracts import MethodError, Paper, TokenizerMethod, Tokens, Variant

__all__ = ["METHOD", "Layton", "signal_and_noise"]

TRAINING_STEPS = 1000


def signal_and_noise(step: int) -> tuple[float, float]:
    """How much signal and noise is in the latents at a training step of SDXL (variances 0.00085 to 0.012, by roots)."""
    betas = np.linspace(0.00085**0.5, 0.012**0.5, TRAINING_STEPS) ** 2
    kept = float(np.prod(1.0 - betas[: step + 1]))
    return kept**0.5, (1.0 - kept) ** 0.5


class Layton(CodeTokenizer):
    """Layton (arXiv 2503.08377).

    Args:
        image_size: Side of the images, in pixels.
        code_size: Side to which they are shrunk before they are encoded.
        vq: Fields of `LdmSize` for the encoder.
        codebook_size: Number of codes.
        codebook_dim: Width of a code.
        unet: Fields of `UNetSize`; SDXL's by default.
        vae: Arguments of `KlAutoencoder`; SDXL's by default.
        latent_scale: What the VAE's latents are multiplied by.
        prompt_tokens: Tokens of the constant text.
        steps: Training steps at which the decoder is run, falling: one or two.
    """

    draws_to_decode = True
    context: Tensor
    vector: Tensor

    def __init__(
        self,
        *,
        image_size: int = 1024,
        code_size: int = 256,
        vq: Mapping[str, Any] | None = None,
        codebook_size: int = 16384,
        codebook_dim: int = 8,
        unet: Mapping[str, Any] | None = None,
        vae: Mapping[str, Any] | None = None,
        latent_scale: float = 0.13025,
        prompt_tokens: int = 77,
        steps: Sequence[int] = (800,),
    ) -> None:
        super().__init__()
        size, unet_size = LdmSize(**(LLAMAGEN_VQ if vq is None else vq)), UNetSize(**({} if unet is None else unet))
        falling = sorted(set(steps), reverse=True)
        if not steps or list(steps) != falling or falling[0] >= TRAINING_STEPS or falling[-1] < 0:
            raise MethodError(f"steps must fall and be 0 to {TRAINING_STEPS - 1}, got {list(steps)}")
        self.vae = KlAutoencoder(**(SDXL_VAE if vae is None else vae))
        if code_size % size.factor or image_size % self.vae.factor:
            raise MethodError(
                f"code_size {code_size} must be a multiple of {size.factor},"
                f" and image_size {image_size} of {self.vae.factor}"
            )
        if self.vae.z_channels != unet_size.channels:
            raise MethodError(f"a VAE of {self.vae.z_channels} channels does not fit a U-Net of {unet_size.channels}")
        self.image_size, self.code_size, self.grid = image_size, code_size, code_size // size.factor
        self.max_tokens, self.side = self.grid**2, image_size // self.vae.factor
        self.latent_scale, self.steps = latent_scale, list(steps)
        self.shares = [signal_and_noise(step) for step in self.steps]
        self.encoder = LdmEncoder(size, (size.levels - 1,))
        self.quant_conv = nn.Conv2d(size.z_channels, codebook_dim, 1)
        self.quantize = VectorQuantizer(codebook_size, codebook_dim, l2_norm=True)
        self.unet = TextUNet(unet_size)
        for part in (self.encoder, self.quant_conv, self.quantize, self.vae, self.unet):
            part.requires_grad_(requires_grad=False)
        self.control = Control(unet_size, codebook_dim)
        self.register_buffer("context", torch.zeros(prompt_tokens, unet_size.context))
        self.register_buffer("vector", torch.zeros(unet_size.vector))

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """One."""
        return self.quantize.codebook_sizes

    def start_control(self) -> None:
        """Give the trainable copy the frozen half's weights, from which training starts."""
        self.control.contracting.load_state_dict(self.unet.contracting.state_dict())

    def encode_codes(self, images: Tensor) -> Tensor:
        """Codes `(B, N)` in row-major order, of images shrunk to `code_size`."""
        small = images
        if self.code_size != self.image_size:
            exact = at_least_float32(images)
            side = (self.code_size, self.code_size)
            small = functional.interpolate(exact, side, mode="bicubic", antialias=True).clamp(0.0, 1.0)
        latents = self.quant_conv(self.encoder(to_signed(small.to(self.number_type))))
        codes: Tensor = self.quantize(as_rows(latents)).codes
        return codes

    def picture(self, codes: Tensor) -> Tensor:
        """The rows of codes `(B, N)` on the latents' grid, each repeated: `(B, codebook_dim, s, s)`."""
        grid = as_grid(self.quantize.lookup(codes).to(self.number_type), self.grid)
        return functional.interpolate(grid, (self.side, self.side), mode="nearest")

    def predict(self, noisy: Tensor, times: Tensor, picture: Tensor) -> Tensor:
        """Differentiable: the noise in latents `(B, 4, s, s)` at training steps `(B,)`, float32 at least.

        Its squared error trains the first stage; the frozen U-Net alone answers where the control adds nothing.
        """
        noisy = noisy.to(self.number_type)
        context, vector = (part.expand(len(noisy), *part.shape) for part in (self.context, self.vector))
        added = self.control(noisy, times, context, vector, picture)
        return at_least_float32(self.unet(noisy, times, context, vector, added))

    def decode_pixels(self, codes: Tensor, noise: Tensor) -> Tensor:
        """Differentiable in the control: images in [0, 1], not clamped, of codes `(B, N)`.

        `noise` is `(B, steps, 4, s, s)`, standard normal: the start, then what is added before each further step.
        So few steps can be supervised in pixels, which mends a diffusion decoder's colours (the second stage).
        """
        picture, noise = self.picture(codes), at_least_float32(noise)
        clean = torch.zeros_like(noise[:, 0])
        for index, (step, (signal, share)) in enumerate(zip(self.steps, self.shares, strict=True)):
            noisy = signal * clean + share * noise[:, index] if index else noise[:, 0]
            times = torch.full((len(codes),), step, device=codes.device)
            clean = (noisy - share * self.predict(noisy, times, picture)) / signal
        latents = (clean / self.latent_scale).to(self.number_type)
        return from_signed(at_least_float32(self.vae.decode(latents)))

    def _decode(self, tokens: Tokens, generator: torch.Generator | None, text: Tensor | None) -> Tensor:  # noqa: ARG002
        codes = codes_of(tokens)
        shape = (len(codes), len(self.steps), self.vae.z_channels, self.side, self.side)
        noise = draw_noise(self.vector.new_empty(shape), need_noise(generator, "decode"))
        return self.decode_pixels(codes, noise)


LLAMAGEN_VQ: Mapping[str, Any] = {"ch": 128, "ch_mult": (1, 1, 2, 2, 4), "num_res_blocks": 2, "z_channels": 256}
"""LlamaGen's VQ-16."""

SDXL_VAE: Mapping[str, Any] = {"ch": 128, "ch_mult": (1, 2, 4, 4), "num_res_blocks": 2, "z_channels": 4}

NO_RELEASE = (
    "no release: built from the paper; the module's docstring says what it leaves open"
    " (a demo's weights, which nobody read here, are at huggingface.co/OPPOer/LaCTok)"
)

HYPER, TLCM = (800,), (999, 499)


def _variant(code_size: int, steps: Sequence[int]) -> Variant:
    return Variant(config={"code_size": code_size, "steps": steps}, note=NO_RELEASE)


METHOD = TokenizerMethod(
    id="layton",
    title="Layton",
    idea="256 tokens lead a frozen latent diffusion model, made consistent, to 1024 pixels in one or two steps",
    paper=Paper(
        title="Layton: Latent Consistency Tokenizer for 1024-pixel Image Reconstruction and Generation by 256 Tokens",
        authors="Qingsong Xie, Zhao Zhang, Zhe Huang, Yanhao Zhang, Haonan Lu, Zhenyu Yang",
        year=2025,
        url="https://arxiv.org/abs/2503.08377",
    ),
    build=Layton,
    variants={
        "h-196": _variant(224, HYPER),
        "h-256": _variant(256, HYPER),
        "h-324": _variant(288, HYPER),
        "t-256": _variant(256, TLCM),
    },
)
