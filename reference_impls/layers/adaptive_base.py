"""What ALIT (arXiv 2411.02393) and KARL (arXiv 2507.07995) share: the grid tokenizer below them, and the blocks."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from reference_impls.layers.grid_vq import as_grid, as_rows
from reference_impls.layers.kl_autoencoder import KlAutoencoder
from reference_impls.layers.ldm_conv import attention_levels
from reference_impls.layers.maskgit_conv import ConvDecoder, ConvEncoder
from reference_impls.layers.precision import at_least_float32
from reference_impls.layers.quantizers import VectorQuantizer
from reference_impls.layers.titok_vit import Block, VitSize

__all__ = [
    "BASE_RENAMES",
    "RELEASED_BASES",
    "BaseTokenizer",
    "PatchDecoder",
    "Transformer",
    "drawn",
    "shared_arguments",
]

VAE_SCALE = 0.2325
"""What MAR's latents are multiplied by."""

BASE_RENAMES = (
    (r"(base_tokenizer\.vqgan\..*\.mid)\.block_1\.", r"\1.0."),
    (r"(base_tokenizer\.vqgan\..*\.mid)\.block_2\.", r"\1.1."),
    (r"(base_tokenizer\.vqgan\..*)\.upsample\.conv\.", r"\1.upsample_conv."),
)
"""The base VQGAN's keys, which are taming's, to ours."""


class Vqgan(nn.Module):
    """MaskGIT's convolutional VQGAN, as MAGE's release has it."""

    def __init__(self, codebook_size: int, **sizes: Any) -> None:
        super().__init__()
        self.encoder, self.decoder = ConvEncoder(**sizes), ConvDecoder(**sizes)
        self.quantize = VectorQuantizer(codebook_size, sizes["z_channels"])


class BaseTokenizer(nn.Module):
    """A grid tokenizer whose latents are read, and predicted, in place of pixels.

    Quirk of both releases: the VAE, too, takes and gives images in [0, 1], and its decoder takes the latents as they
    are predicted, without dividing them by the 0.2325 that its encoder's were multiplied by.

    Args:
        vqgan: Arguments of MaskGIT's VQGAN: `hidden_channels`, `channel_mult`, `num_res_blocks`, `z_channels` and
            `codebook_size`; None where the base is a VAE.
        vae: Arguments of `KlAutoencoder`; None where it is a VQGAN.
    """

    def __init__(self, vqgan: Mapping[str, Any] | None = None, vae: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.vqgan = None if vqgan is None else Vqgan(**vqgan)
        self.vae = None if vae is None else KlAutoencoder(**vae)
        sizes: Mapping[str, Any] = vqgan or vae or {}
        self.channels = int(sizes["z_channels"])
        self.factor = 2 ** (len(sizes["channel_mult" if vqgan else "ch_mult"]) - 1)
        self.outputs = self.channels if self.vqgan is None else self.vqgan.quantize.codebook_size

    def latents(self, images: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Latents `(B, C, h, w)` of images in [0, 1], not quantised, and a VQGAN's codes of them `(B, h*w)`.

        A VAE's are drawn with `noise`, shaped as they are; without it they are the mean.
        """
        if self.vqgan is not None:
            grid = self.vqgan.encoder(images)
            return grid, self.vqgan.quantize(as_rows(grid)).codes
        assert self.vae is not None  # noqa: S101  one of the two is there
        posterior = self.vae.posterior(images)
        return VAE_SCALE * (posterior.mean if noise is None else posterior.sample(noise)), None

    def decode(self, predicted: Tensor, height: int) -> Tensor:
        """Images, not clamped, of what a decoder predicts `(B, h*w, outputs)`: logits over codes, or a VAE's latents.

        Logits become a mixture of codebook rows, for the VQGAN's decoder was finetuned on such.
        """
        if self.vqgan is not None:
            with torch.autocast(predicted.device.type, enabled=False):
                rows = torch.softmax(at_least_float32(predicted), dim=-1) @ self.vqgan.quantize.codebook()
            number_type = self.vqgan.quantize.embedding.weight.dtype
            return at_least_float32(self.vqgan.decoder(as_grid(rows.to(number_type), height)))
        assert self.vae is not None  # noqa: S101  one of the two is there
        return at_least_float32(self.vae.decode(as_grid(predicted, height)))


class Transformer(nn.Module):
    """TiTok's blocks one after the other, with a mask where there is one."""

    def __init__(self, size: VitSize) -> None:
        super().__init__()
        self.transformer = nn.ModuleList(Block(size) for _ in range(size.layers))

    def run(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """`(B, L, width)` to the same shape."""
        for block in self.transformer:
            x = block(x, mask)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """`(B, L, width)` to the same shape."""
        return self.run(x)


class PatchDecoder(Transformer):
    """A transformer whose first tokens tell the patches, as `outputs` values each."""

    def __init__(self, size: VitSize, outputs: int) -> None:
        super().__init__(size)
        width = size.width
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.ffn = nn.Sequential(nn.Linear(width, 2 * width), nn.Tanh(), nn.Linear(2 * width, outputs))

    def patches(self, hidden: Tensor, mask: Tensor | None, places: slice) -> Tensor:
        """`(B, L, width)` to `(B, h*w, outputs)`, of the tokens at `places`."""
        out: Tensor = self.ffn(self.ln_post(self.run(self.ln_pre(hidden), mask)[:, places]))
        return out


def drawn(*shape: int) -> nn.Parameter:
    """A learned table `(..., width)`, its values drawn with variance 1 / width."""
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(*shape), std=shape[-1] ** -0.5))


def shared_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that both methods have, for a release's configuration with its parts' sizes spelled out."""
    return {
        "image_size": config["image_size"],
        "patch_size": config["patch_size"],
        "base": base_arguments(config["base"]),
        "encoder": dict(config["encoder"]),
        "decoder": dict(config["decoder"]),
        "token_dim": config["vq_token_dim"],
        "codebook_size": config["vq_codebook_size"] if config["quantize_latent"] else None,
    }


def base_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `BaseTokenizer` for the releases' configuration of it."""
    if config["id"] == "vqgan":
        sizes = config["ddconfig"]
        return {
            "vqgan": {
                "hidden_channels": sizes["ch"],
                "channel_mult": sizes["ch_mult"],
                "num_res_blocks": sizes["num_res_blocks"],
                "z_channels": sizes["z_channels"],
                "codebook_size": config["n_embed"],
            }
        }
    levels = len(config["ch_mult"])
    return {
        "vae": {
            "ch": config["ch"],
            "ch_mult": config["ch_mult"],
            "num_res_blocks": config["num_res_blocks"],
            "z_channels": config["embed_dim"],
            "encoder_attention": list(attention_levels(levels, config["resolution"], (16,))),
        }
    }


RELEASED_BASES: Mapping[str, Any] = {
    "vqgan": {
        "vqgan": {
            "hidden_channels": 128,
            "channel_mult": [1, 1, 2, 2, 4],
            "num_res_blocks": 2,
            "z_channels": 256,
            "codebook_size": 1024,
        }
    },
    "vae": {
        "vae": {
            "ch": 128,
            "ch_mult": [1, 1, 2, 2, 4],
            "num_res_blocks": 2,
            "z_channels": 16,
            "encoder_attention": [4],
        }
    },
}
"""MAGE's VQGAN and MAR's KL-16, arguments of `BaseTokenizer`."""
