"""TokenFlow: two codebooks, one for meaning and one for pixels, that share their indices."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from timm.models.beit import Block
from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.grid_vq import as_grid, as_rows
from reference_impls.layers.ldm_conv import LLAMAGEN, LdmDecoder, LdmEncoder, LdmSize
from reference_impls.layers.multiscale import MultiScaleQuantizer
from reference_impls.layers.precision import at_least_float32
from reference_impls.layers.quantizers import Quantized, nearest_rows
from reference_impls.layers.titok_vit import VitSize
from reference_impls.layers.tokenizer import CodeTokenizer, from_signed, to_signed
from reference_impls.layers.vision_towers import SIGLIP, ClipTower, SiglipTower, enlarged_positions
from tokenmark.contracts import Layout, MethodError, Paper, Release, TokenizerMethod, Variant

__all__ = ["METHOD", "TokenFlow", "release_arguments"]


class DualQuantizer(MultiScaleQuantizer):
    """One index for two codebooks: the one whose two distances, each on the unit sphere, have the least sum (eq. 2).

    Latents and codes hold the semantic part before the pixel part. Codes stand for normalised rows; there are no
    phis between the scales.

    Args:
        scales: As in `MultiScaleQuantizer`.
        codebook_size: Number of codes.
        semantic_dim: Width of the semantic part.
        pixel_dim: Width of the pixel part.
        used: Length of the training statistics that checkpoints carry along.
    """

    def __init__(
        self, scales: Sequence[int], *, codebook_size: int, semantic_dim: int, pixel_dim: int, used: int
    ) -> None:
        super().__init__(scales, commitment_cost=1.0)
        self.widths = [semantic_dim, pixel_dim]
        self.embedding_vqkd = nn.Embedding(codebook_size, semantic_dim)
        self.embedding_vqgan = nn.Embedding(codebook_size, pixel_dim)
        self.register_buffer("codebook_used", torch.zeros(used))

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """One: both codebooks have the same indices."""
        return (self.embedding_vqkd.num_embeddings,)

    def codebook(self) -> Tensor:
        """The rows that codes stand for, `(K, C)`."""
        tables = (self.embedding_vqkd.weight, self.embedding_vqgan.weight)
        return torch.cat([functional.normalize(at_least_float32(table), dim=-1) for table in tables], dim=-1)

    def choose(self, rows: Tensor, scale: int) -> Tensor:  # noqa: ARG002  all scales alike
        """Codes `(B, n)` of rows `(B, n, C)`."""
        parts = [functional.normalize(part, dim=-1) for part in rows.split(self.widths, dim=-1)]
        return nearest_rows(torch.cat(parts, dim=-1), self.codebook().detach())

    def rows(self, codes: Tensor, scale: int) -> Tensor:  # noqa: ARG002  all scales alike
        """Codebook rows `(B, n, C)` of codes `(B, n)`."""
        return functional.embedding(codes, self.codebook())


class SemanticDecoder(nn.Module):
    """Semantic codes to features of the teacher's patches, through BEiT's blocks.

    Args:
        channels: Channels of a code.
        width: Channels of the transformer.
        layers: Number of blocks.
        heads: Number of heads.
        grid: Side of the grid for which its positions were trained.
    """

    def __init__(self, *, channels: int, width: int, layers: int, heads: int, grid: int) -> None:
        super().__init__()
        norm: Any = partial(nn.LayerNorm, eps=1e-6)
        self.cls_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, width), std=0.02))
        self.pos_embed = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, grid * grid + 1, width), std=0.02))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(channels, width, 1)})
        self.blocks = nn.Sequential(*(Block(width, heads, qkv_bias=True, norm_layer=norm) for _ in range(layers)))
        self.fc_norm = norm(width)

    def forward(self, codes: Tensor) -> Tensor:
        """Codes `(B, channels, g, g)` to features `(B, g*g, width)`."""
        patches = self.patch_embed["proj"](codes).flatten(2).transpose(1, 2)
        positions = enlarged_positions(self.pos_embed[0], codes.shape[-1])
        start = self.cls_token.expand(len(codes), -1, -1).to(patches.dtype)
        out: Tensor = self.fc_norm(self.blocks(torch.cat([start, patches], dim=1) + positions)[:, 1:])
        return out


class ScalingLayer(nn.Module):
    """Images in [-1, 1], clamped, as SigLIP takes them; its numbers are in the checkpoints."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.full((1, 3, 1, 1), 0.5))
        self.register_buffer("scale", torch.full((1, 3, 1, 1), 0.5))

    def forward(self, signed: Tensor) -> Tensor:
        """`(B, 3, H, W)` to the same shape."""
        return (from_signed(signed).clamp(0.0, 1.0) - self.shift) / self.scale


def _task_layer(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, inputs), nn.Tanh(), nn.Linear(inputs, outputs))


class TokenFlow(CodeTokenizer):
    """TokenFlow (arXiv 2412.03069): features of a vision tower and of a VQGAN, quantised together, coarse to fine.

    Args:
        image_size: Side of the images, in pixels.
        teacher: `clip` or `siglip`.
        tower: Sizes of the teacher's vision tower: `width`, `layers`, `heads`, `patch_size` and its `image_size`;
            for SigLIP also `mlp`, the channels inside an MLP.
        scales: Sides of the grids of codes, coarse to fine; the last is the side of the tower's grid.
        codebook_size: Number of codes.
        semantic_dim: Width of a code's semantic part.
        pixel_dim: Width of its pixel part.
        semantic_decoder: `layers` and `heads` of the decoder to the teacher's features, the side of the `grid` of its
            positions, and the channels (`outputs`) that come out.
        ch: Width of the pixel encoder, which `ch_mult` multiplies.
        decoder_ch: The same of the pixel decoder.
        ch_mult: One factor per level of both, finest first; attention is at the coarsest level.
        num_res_blocks: Residual blocks per level of the encoder.
        decoder_res_blocks: The decoder has one more than so many.
        z_channels: Channels between the pixel networks and the bottleneck.
        used: Length of the training statistics that checkpoints carry along.
    """

    def __init__(
        self,
        *,
        image_size: int,
        teacher: str,
        tower: Mapping[str, Any],
        scales: Sequence[int],
        codebook_size: int,
        semantic_decoder: Mapping[str, int],
        semantic_dim: int = 32,
        pixel_dim: int = 8,
        ch: int = 128,
        decoder_ch: int = 128,
        ch_mult: Sequence[int] = (1, 1, 2, 2, 4),
        num_res_blocks: int = 2,
        decoder_res_blocks: int = 2,
        z_channels: int = 256,
        used: int = 131072,
    ) -> None:
        super().__init__()
        size = LdmSize(ch=ch, ch_mult=ch_mult, num_res_blocks=num_res_blocks, z_channels=z_channels)
        large = LdmSize(ch=decoder_ch, ch_mult=ch_mult, num_res_blocks=decoder_res_blocks, z_channels=z_channels)
        coarsest = (size.levels - 1,)
        width, self.grid = int(tower["width"]), image_size // int(tower["patch_size"])
        if self.grid != scales[-1]:
            raise MethodError(f"the last scale must be the tower's grid, {self.grid}, got {scales[-1]}")
        # SigLIP's patches do not divide the images: the pixel networks work at a size of their own, and it is resized.
        self.pixel_size = size.factor * self.grid
        if teacher == "clip" and self.pixel_size != image_size:
            raise MethodError(f"image_size must be {size.factor} * {self.grid} for both branches, got {image_size}")
        self.image_size = image_size
        self.encoder = LdmEncoder(size, coarsest)
        self.decoder = LdmDecoder(large, coarsest, running_order=True)
        self.quant_conv = nn.Conv2d(z_channels, pixel_dim, 1)
        self.post_quant_conv = nn.Conv2d(pixel_dim, z_channels, 1)
        self.encoder_vqkd = _tower(teacher, tower)
        self.scaling_layer = ScalingLayer() if teacher == "siglip" else None
        sizes = {name: semantic_decoder[name] for name in ("layers", "heads", "grid")}
        self.decoder_vqkd = SemanticDecoder(channels=semantic_dim, width=width, **sizes)
        self.encode_task_layer = _task_layer(width, semantic_dim)
        self.decode_task_layer = _task_layer(width, semantic_decoder["outputs"])
        self.quantize = DualQuantizer(
            scales, codebook_size=codebook_size, semantic_dim=semantic_dim, pixel_dim=pixel_dim, used=used
        )
        self.max_tokens = self.quantize.length

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """One: both codebooks have the same indices."""
        return self.quantize.codebook_sizes

    def semantic_features(self, signed: Tensor) -> Tensor:
        """Differentiable: the semantic part `(B, N, C)` of images in [-1, 1], before the quantizer.

        CLIP is shown them as they are, without its own mean and deviation (vq_model.py, `scaling_layer = None`).
        """
        seen = signed if self.scaling_layer is None else self.scaling_layer(signed)
        out: Tensor = self.encode_task_layer(self.encoder_vqkd(seen))
        return out

    def pixel_features(self, signed: Tensor) -> Tensor:
        """Differentiable: the pixel part `(B, C, g, g)` of images in [-1, 1], before the quantizer."""
        out: Tensor = self.quant_conv(self.encoder(_resized(signed, self.pixel_size)))
        return out

    def quantize_images(self, images: Tensor) -> Quantized:
        """Differentiable: latents `(B, g*g, C)` of images in [0, 1], quantised."""
        signed = to_signed(images.to(self.number_type))
        parts = [self.semantic_features(signed), as_rows(self.pixel_features(signed))]
        quantized: Quantized = self.quantize(torch.cat([at_least_float32(part) for part in parts], dim=-1))
        return quantized

    def decode_pixels(self, latents: Tensor) -> Tensor:
        """Differentiable: images in [-1, 1], not clamped, of quantised latents `(B, g*g, C)`."""
        pixels = as_grid(latents[..., self.quantize.widths[0] :], self.grid).to(self.number_type)
        return _resized(at_least_float32(self.decoder(self.post_quant_conv(pixels))), self.image_size)

    def decode_semantics(self, latents: Tensor) -> Tensor:
        """Differentiable: the teacher's features `(B, g*g, outputs)` of quantised latents `(B, g*g, C)`."""
        semantics = as_grid(latents[..., : self.quantize.widths[0]], self.grid).to(self.number_type)
        out: Tensor = self.decode_task_layer(self.decoder_vqkd(semantics))
        return out

    def encode_codes(self, images: Tensor) -> Tensor:
        """Codes `(B, N)`: all scales, coarse to fine."""
        return self.quantize_images(images).codes

    def decode_codes(self, codes: Tensor) -> Tensor:
        """Images of codes `(B, N)`; the coarsest scales alone will do, if they are whole."""
        return from_signed(self.decode_pixels(self.quantize.lookup(codes)))


def _tower(teacher: str, sizes: Mapping[str, Any]) -> nn.Module:
    names = ("width", "layers", "heads", "patch_size")
    known = {name: int(sizes[name]) for name in names}
    if teacher == "clip":
        return ClipTower(VitSize(**known), int(sizes["image_size"]))
    if teacher == "siglip":
        return SiglipTower(**known, hidden=int(sizes["mlp"]), image_size=int(sizes["image_size"]))
    raise MethodError(f"teacher must be 'clip' or 'siglip', got {teacher!r}")


def _resized(images: Tensor, side: int) -> Tensor:
    if images.shape[-1] == side:
        return images
    return functional.interpolate(images, size=(side, side), mode="bicubic")


CLIP_B = {"image_size": 224, "patch_size": 16, "width": 768, "layers": 12, "heads": 12}
SO400M = {"image_size": 384, "patch_size": 14, "width": 1152, "mlp": 4304, "layers": 27, "heads": 16}
CLIP_SCALES = (1, 2, 4, 6, 8, 10, 12, 14)
SIGLIP_SCALES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 17, 22, 27)


def release_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `TokenFlow` for the release's `ModelArgs`.

    What the release hard-codes for each teacher is taken from the configuration where that spells it out.
    """
    siglip = config["teacher"] == "siglip_384"
    if not siglip and config["teacher"] != "clipb_224":
        raise MethodError(f"no weights were released for the teacher {config['teacher']!r}")
    beyond = bool(config.get("infer_interpolate", False))
    scales = config.get("scales", SIGLIP_SCALES if siglip else (*CLIP_SCALES, 16) if beyond else CLIP_SCALES)
    reduced, pixel = bool(config.get("reduced", False)), config.get("pixel", {})
    enhanced = bool(config.get("enhanced_decoder", False))
    ch, blocks = pixel.get("ch", 128), pixel.get("res_blocks", 2)
    return {
        "image_size": config.get("image_size", 384 if siglip else 256 if beyond else 224),
        "teacher": "siglip" if siglip else "clip",
        "tower": dict(config.get("teacher_model", SO400M if siglip else CLIP_B)),
        "scales": list(scales),
        "codebook_size": config["codebook_size"],
        "semantic_dim": config.get("semantic_code_dim", 32),
        "pixel_dim": config.get("codebook_embed_dim", 8),
        "semantic_decoder": {
            "layers": config.get("semantic_decoder_depth", 3),
            "heads": config.get("semantic_decoder_heads", 12),
            # CLIP's 224 pixels, even where images are larger; reduced models have positions for the grid that is.
            "grid": scales[-1] if siglip or reduced else 14,
            "outputs": config.get("semantic_out_dim", 1152 if siglip else 512),
        },
        "ch": ch,
        "decoder_ch": pixel.get("enhanced_ch", 256) if enhanced else ch,
        "ch_mult": list(pixel.get("ch_mult", (1, 1, 2, 2, 4))),
        "num_res_blocks": blocks,
        "decoder_res_blocks": pixel.get("enhanced_res_blocks", 4) if enhanced else blocks,
        "z_channels": pixel.get("z_channels", 256),
        "used": 64 if reduced else 131072,
    }


def _variant(file: str, **config: Any) -> Variant:
    arguments = release_arguments({"codebook_size": 32768, **config})
    return Variant(config=arguments, release=Release("ByteFlow-AI/TokenFlow", file, licence="Apache-2.0"))


METHOD = TokenizerMethod(
    id="tokenflow",
    title="TokenFlow",
    idea="One index points into two codebooks, one of meaning and one of pixels, from coarse scales to fine ones",
    paper=Paper(
        title="TokenFlow: Unified Image Tokenizer for Multimodal Understanding and Generation",
        authors="Liao Qu, Huichao Zhang, Yiheng Liu, Xu Wang, Yi Jiang, Yiming Gao, Hu Ye, Daniel K. Du, Zehuan Yuan, "
        "Xinglong Wu",
        year=2024,
        url="https://arxiv.org/abs/2412.03069",
    ),
    build=TokenFlow,
    from_release=release_arguments,
    layout=Layout(wrappers=("ema", "model", "state_dict"), renames=(*LLAMAGEN, *SIGLIP)),
    variants={
        "clipb-32k-enhanced": _variant(
            "tokenflow_clipb_32k_enhanced.pt", teacher="clipb_224", infer_interpolate=True, enhanced_decoder=True
        ),
        "siglip-32k": _variant("tokenflow_siglip_32k.pt", teacher="siglip_384"),
    },
)
