"""ImageFolder and the XQ-GAN zoo: transformers with latent tokens around product, residual and binary quantisers."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.binary import bits_of_codes, codes_of_bits
from reference_impls.layers.grid_vq import as_grid, as_rows
from reference_impls.layers.imagefolder_vit import FolderDecoder, FolderEncoder, FolderSize, PlainViT
from reference_impls.layers.multiscale import MultiScaleQuantizer, MultiScaleVQ, SharedPhis
from reference_impls.layers.precision import at_least_float32
from reference_impls.layers.quantizers import Quantizer, VectorQuantizer
from reference_impls.layers.tokenizer import CodeTokenizer, from_signed, to_signed
from tokenmark.contracts import Layout, MethodError, Paper, TokenizerMethod, Variant

__all__ = ["METHOD", "ImageFolder", "release_arguments"]


class MultiScaleLFQ(MultiScaleQuantizer):
    """Binary codes scale after scale: the sign of every channel, times the magnitude of the scale.

    Latents are put on the unit sphere first; bit i counts 2 ** i and is set where channel i is above zero.

    Args:
        scales: As in `MultiScaleQuantizer`.
        bits: Channels, C.
        phis: As in `MultiScaleQuantizer`.
    """

    scaler: Tensor

    def __init__(self, scales: Sequence[int], bits: int, *, phis: nn.Module | None = None) -> None:
        super().__init__(scales, phis)
        self.bits = bits
        # The magnitudes are in the checkpoints; they start all alike, on the unit sphere.
        self.register_buffer("scaler", torch.full((len(scales),), bits**-0.5))
        # Training statistics that releases keep in their checkpoints.
        self.register_buffer("ema_vocab_hit_SV", torch.zeros(len(scales), 2**bits))

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """One codebook, which is nowhere written out."""
        return (2**self.bits,)

    def prepare(self, latents: Tensor) -> Tensor:
        """Latents `(B, N, C)` on the unit sphere."""
        return functional.normalize(latents, dim=-1)

    def choose(self, rows: Tensor, scale: int) -> Tensor:  # noqa: ARG002  all scales alike
        """Codes `(B, n)` of rows `(B, n, C)`."""
        return codes_of_bits(rows > 0)

    def rows(self, codes: Tensor, scale: int) -> Tensor:
        """+-magnitude `(B, n, C)` of codes `(B, n)`."""
        return (2 * bits_of_codes(codes, self.bits) - 1) * at_least_float32(self.scaler)[scale]


class ImageFolder(CodeTokenizer):
    """ImageFolder (arXiv 2410.01756), XQ-GAN (arXiv 2412.01762) and RobustTok (arXiv 2503.08354).

    Codes are `(B, N)`, or `(B, N, P)` for P branches.

    Args:
        image_size: Side of the images, in pixels.
        patch_size: Side of a patch, in pixels.
        width: Channels of both transformers.
        layers: Number of their blocks.
        heads: Number of their heads.
        scales: Sides of the grids of codes, coarse to fine; the last is the side of the square of latent tokens.
        codebook_size: Number of codes of one branch; with `binary` 2 ** `codebook_dim`.
        codebook_dim: Channels of a code.
        branches: P, branches with a quantiser of their own each (product quantisation).
        binary: Codes of signs and no codebook.
        l2_norm: Choose codes by the angle.
        phis: How many convolutions the scales share, if there are several scales.
        semantic_model: Hold the frozen DINOv2 that only training looks at, for checkpoints that have it.
    """

    def __init__(
        self,
        *,
        image_size: int,
        patch_size: int = 16,
        width: int = 768,
        layers: int = 12,
        heads: int = 12,
        scales: Sequence[int],
        codebook_size: int,
        codebook_dim: int,
        branches: int = 1,
        binary: bool = False,
        l2_norm: bool = True,
        phis: int = 4,
        semantic_model: bool = False,
    ) -> None:
        super().__init__()
        if binary and codebook_size != 2**codebook_dim:
            raise MethodError(f"{codebook_dim} bits are {2**codebook_dim} codes, got codebook_size {codebook_size}")
        self.image_size, self.grid, self.branches = image_size, scales[-1], branches
        size = FolderSize(
            image_size=image_size, patch_size=patch_size, width=width, layers=layers, heads=heads, latent_grid=self.grid
        )
        self.encoder = FolderEncoder(size, branches)
        self.quant_conv = nn.Conv2d(width, codebook_dim, 1)
        self.decoder = FolderDecoder(size)
        self.post_quant_conv = nn.Conv2d(branches * codebook_dim, width, 1)

        def quantizer() -> Quantizer:
            return _quantizer(scales, codebook_size, codebook_dim, binary=binary, l2_norm=l2_norm, phis=phis)

        self.quantizes = nn.ModuleList(quantizer() for _ in range(branches))
        self.semantic_model = _as_buffers(PlainViT(size)) if semantic_model else None
        self.max_tokens = sum(side * side for side in scales)

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """One per branch."""
        return tuple(size for quantize in self.quantizers for size in quantize.codebook_sizes)

    @property
    def quantizers(self) -> list[Quantizer]:
        """One per branch."""
        return [quantize for quantize in self.quantizes if isinstance(quantize, Quantizer)]

    def encode_latents(self, signed: Tensor) -> Tensor:
        """Differentiable: latents `(B, P*L, C)` of images in [-1, 1], before the quantisers, branch after branch."""
        tokens = self.encoder(signed).transpose(1, 2).unsqueeze(3)
        return as_rows(self.quant_conv(tokens))

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Differentiable: images in [-1, 1], not clamped, of quantised latents `(B, L, P*C)`, branches side by side."""
        grid = as_grid(latents, self.grid).to(self.number_type)
        return at_least_float32(self.decoder(self.post_quant_conv(grid)))

    def lookup(self, codes: Tensor) -> Tensor:
        """Quantised latents `(B, L, P*C)` of codes; of several scales, the coarsest alone will do."""
        by_branch = codes.unsqueeze(2) if self.branches == 1 else codes
        rows = [quantize.lookup(by_branch[:, :, index]) for index, quantize in enumerate(self.quantizers)]
        return torch.cat(rows, dim=-1)

    def encode_codes(self, images: Tensor) -> Tensor:
        """Codes `(B, N)` or `(B, N, P)`: all scales, coarse to fine."""
        parts = self.encode_latents(to_signed(images)).chunk(self.branches, dim=1)
        codes = [quantize(part).codes for quantize, part in zip(self.quantizers, parts, strict=True)]
        return codes[0] if self.branches == 1 else torch.stack(codes, dim=2)

    def decode_codes(self, codes: Tensor) -> Tensor:
        """Images of codes."""
        return from_signed(self.decode_latents(self.lookup(codes)))


def _quantizer(
    scales: Sequence[int], codebook_size: int, codebook_dim: int, *, binary: bool, l2_norm: bool, phis: int
) -> Quantizer:
    """One branch's: a codebook on one grid, whose rows are normalised, or codes of several scales."""
    if len(scales) == 1 and not binary:
        plain = VectorQuantizer(codebook_size, codebook_dim, l2_norm=l2_norm)
        plain.register_buffer("ema_vocab_hit_SV", torch.zeros(codebook_size))  # training statistics
        return plain
    shared = SharedPhis(codebook_dim, len(scales), phis)
    if binary:
        return MultiScaleLFQ(scales, codebook_dim, phis=shared)
    return MultiScaleVQ(scales, codebook_size, codebook_dim, phis=shared, cosine=l2_norm)


def _as_buffers(module: nn.Module) -> nn.Module:
    """The same state without parameters, for what is no part of the tokenizer: it is not to be counted with it."""
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            delattr(part, name)
            part.register_buffer(name, parameter.detach())
    return module


def release_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `ImageFolder` for the release's `ModelArgs`, with the sizes of its transformer as `vit`."""
    vit = config.get("vit", {})
    scales = list(config["v_patch_nums"])
    if not config.get("abs_pos_embed", True):
        raise MethodError("no release leaves out the positions of latent tokens: abs_pos_embed must be true")
    if scales[-1] ** 2 != config["num_latent_tokens"]:
        raise MethodError(f"the last scale must be the square root of {config['num_latent_tokens']}, got {scales[-1]}")
    return {
        "image_size": config.get("image_size", 256),
        "patch_size": config.get("patch_size", 16),
        "width": vit.get("dim", 768),
        "layers": vit.get("depth", 12),
        "heads": vit.get("heads", 12),
        "scales": scales,
        "codebook_size": config["codebook_size"],
        "codebook_dim": config["codebook_embed_dim"],
        "branches": config.get("product_quant", 1),
        "binary": config.get("lfq", False),
        "l2_norm": config.get("codebook_l2_norm", True),
        "phis": config.get("share_quant_resi", 4),
        "semantic_model": config.get("semantic_guide", "none") == "dinov2",
    }


RESIDUAL = (1, 1, 2, 3, 3, 4, 5, 6, 8, 11)
"""Scales of the multi-scale variants."""


def _variant(codebook_size: int, codebook_dim: int, **arguments: Any) -> Variant:
    config = {"scales": [16], "codebook_size": codebook_size, "codebook_dim": codebook_dim, **arguments}
    return Variant(
        config={"image_size": 256, **config, "semantic_model": True},
        note="best_ckpt.pt of the zoo at github.com/lxa9867/ImageFolder; Adobe Research Licence, no commercial use",
    )


METHOD = TokenizerMethod(
    id="imagefolder",
    title="ImageFolder, XQ-GAN, RobustTok",
    idea="Two short codes side by side, one near in meaning and one for detail, each from coarse scales to fine ones",
    paper=Paper(
        title="ImageFolder: Autoregressive Image Generation with Folded Tokens",
        authors="Xiang Li, Kai Qiu, Hao Chen, Jason Kuen, Jiuxiang Gu, Bhiksha Raj, Zhe Lin",
        year=2024,
        url="https://arxiv.org/abs/2410.01756",
    ),
    build=ImageFolder,
    from_release=release_arguments,
    layout=Layout(
        wrappers=("ema", "model"),
        # A second frozen network of training, which only some checkpoints may have.
        ignored=("detail_model.",),
        renames=((r"^quantize\.", "quantizes.0."),),
    ),
    variants={
        "vq-4096": _variant(4096, 64),
        "vq-8192": _variant(8192, 32),
        "vp2-4096": _variant(4096, 32, branches=2),
        "vp2-16384": _variant(16384, 32, branches=2),
        "msvr10p2-4096": _variant(4096, 32, branches=2, scales=RESIDUAL),
        "msvr10p2-8192": _variant(8192, 32, branches=2, scales=RESIDUAL),
        "msvr10p2-16384": _variant(16384, 32, branches=2, scales=RESIDUAL),
        "msbr10p2-4096": _variant(4096, 12, branches=2, scales=RESIDUAL, binary=True),
        "msbr10p2-16384": _variant(16384, 14, branches=2, scales=RESIDUAL, binary=True),
        "robusttok": _variant(4096, 64),
    },
)
