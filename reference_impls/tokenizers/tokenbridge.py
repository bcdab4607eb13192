"""TokenBridge: the latents of a finished KL autoencoder, each of their numbers rounded to one of 64 levels."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from reference_impls.layers import tokenbridge_network
from reference_impls.layers.gaussian import draw_noise
from reference_impls.layers.gaussian_levels import GaussianLevels
from reference_impls.layers.grid_vq import as_rows
from reference_impls.layers.precision import at_least_float32
from reference_impls.layers.token_checks import need_noise, pack_codes
from reference_impls.layers.tokenizer import CodeTokenizer
from reference_impls.tokenizers import mar_vae
from reference_impls.tokenizers.mar_vae import MarVAE
from tokenmark.contracts import Layout, Paper, TokenizerMethod, Tokens, Variant

__all__ = ["METHOD", "TokenBridge", "release_arguments"]


class TokenBridge(CodeTokenizer):
    """Quantisation after training, number by number (arXiv 2503.16430): a token has one code for each channel.

    Args:
        image_size: Side of the images, in pixels.
        vae: Arguments of `MarVAE`, without `image_size`.
        bits: Of every code.
        reach: Scaled latents beyond this are cut off.
    """

    # The release quantises a sample of the posterior, in evaluation too.
    stochastic = True

    def __init__(
        self, *, image_size: int, vae: Mapping[str, Any] | None = None, bits: int = 6, reach: float = 5.0
    ) -> None:
        super().__init__()
        self.vae = MarVAE(image_size=image_size, **(vae or {}))
        self.quantize = GaussianLevels(2**bits, reach)
        self.bits = bits
        self.image_size, self.max_tokens = image_size, self.vae.max_tokens

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """The levels, once for each channel."""
        return (2**self.bits,) * self.vae.channels

    def latent_codes(self, latents: Tensor) -> Tensor:
        """Codes `(B, N, C)` of the autoencoder's latents `(B, N, C)`."""
        return self.quantize.codes(at_least_float32(latents) * self.vae.latent_scale)

    def _encode(self, images: Tensor, tokens: int | None, generator: torch.Generator | None) -> Tokens:  # noqa: ARG002
        posterior = self.vae.posterior(images)
        sample = posterior.sample(draw_noise(posterior.mean, need_noise(generator, "encode")))
        return pack_codes(self.latent_codes(as_rows(sample)), self.codebook_sizes)

    def decode_codes(self, codes: Tensor) -> Tensor:
        """Images of codes `(B, N, C)`."""
        return self.vae.decode_latents(self.quantize.values(codes) / self.vae.latent_scale)


def release_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `TokenBridge` for what the release hard-codes; attention goes by nominal resolutions."""
    network = {
        **config,
        "resolution": config["image_size"],
        "encoder_attn_resolutions": config["attn_resolutions"],
        "decoder_attn_resolutions": (),
    }
    vae = mar_vae.release_arguments(network)
    return {"image_size": vae.pop("image_size"), "vae": vae, "bits": config["bits"], "reach": config["range"]}


METHOD = TokenizerMethod(
    id="tokenbridge",
    title="TokenBridge",
    idea="Continuous latents become codes after training: every channel is rounded by itself, to levels of a Gaussian",
    paper=Paper(
        title="Bridging Continuous and Discrete Tokens for Autoregressive Visual Generation",
        authors="Yuqing Wang, Zhijie Lin, Yao Teng, Yuanzhi Zhu, Shuhuai Ren, Jiashi Feng, Xihui Liu",
        year=2025,
        url="https://arxiv.org/abs/2503.16430",
    ),
    build=TokenBridge,
    from_release=release_arguments,
    layout=Layout(
        wrappers=("model",),
        renames=(
            (r"^(encoder|decoder|quant_conv|post_quant_conv)\.", r"vae.vae.\1."),
            # Those of the generator that was published along with it.
            *tokenbridge_network.RENAMES,
        ),
    ),
    variants={
        "kl16-6bit": Variant(
            config={"image_size": 256}, note="weights: MAR's kl16.ckpt, see LTH14/mar; the quantiser has none"
        )
    },
)
