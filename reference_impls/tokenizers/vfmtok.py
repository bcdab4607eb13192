"""VFMTok: learned queries gather the features of a frozen DINOv2 by deformable attention, and are the tokens."""

from collections.abc import Mapping, Sequence
from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.deformable import DeformableAttention, cell_centres
from reference_impls.layers.dinov2 import DINOV2_L, DINOV2_L_PART, Foundation, foundation_arguments
from reference_impls.layers.grid_vq import as_grid
from reference_impls.layers.ldm_conv import LLAMAGEN, LdmDecoder, LdmSize
from reference_impls.layers.precision import at_least_float32
from reference_impls.layers.quantizers import Quantized, VectorQuantizer
from reference_impls.layers.swiglu_blocks import SWIGLU, Attention, Projector, SwigluStack, drawn, resized_positions
from reference_impls.layers.tokenizer import CodeTokenizer, from_signed, to_signed
from tokenmark.contracts import Layout, MethodError, Paper, Release, TokenizerMethod, Variant

__all__ = ["METHOD", "VfmTok", "release_arguments"]

USED = 65536
"""Length of the training statistics that a checkpoint carries along."""
HEADS = 8
"""Heads of the encoder's layers, whatever their width."""
TABLE_SIDE = 24
"""Side of the grid that the decoder's position table was made for."""
REGISTERS = 4
FEATURES = 1024
"""What the head for the foundation model's features gives, whichever model that is."""


class RegionLayer(nn.Module):
    """Deformable attention to the features, causal attention among the queries, MLP; each normed behind its sum."""

    def __init__(self, width: int, levels: int, points: int) -> None:
        super().__init__()
        hidden = min(4 * width, 1024)
        self.cross_attn = DeformableAttention(width, HEADS, levels, points)
        self.norm1 = nn.LayerNorm(width)
        self.linear1, self.linear2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norm2 = nn.LayerNorm(width)
        self.self_attn = Attention(width, HEADS)
        self.norm3 = nn.LayerNorm(width)

    def forward(self, x: Tensor, positions: Tensor, places: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """Queries `(B, Q, width)` to the same; their positions `(1, Q, width)` and places `(Q, 2)`."""
        x = self.norm1(x + self.cross_attn(x + positions, places, maps))
        # Positions enter the values too, and not queries and keys alone as in DETR (the release does it so).
        x = self.norm3(x + self.self_attn(x + positions, causal=True))
        out: Tensor = self.norm2(x + self.linear2(functional.relu(self.linear1(x))))
        return out


class VfmEncoder(nn.Module):
    """Features of a frozen foundation model at several depths to slots."""

    def __init__(
        self, foundation: Mapping[str, Any], levels: Sequence[int], *, dim: int, depth: int, n_carrier: int, points: int
    ) -> None:
        super().__init__()
        self.levels = tuple(levels)
        side = isqrt(n_carrier)
        self.carrier_tokens, self.slots_pos = drawn(1, n_carrier, dim), drawn(1, n_carrier, dim)
        self.backbone = Foundation(**foundation)
        self.projectors = nn.ModuleList(Projector(self.backbone.size.dim, dim) for _ in levels)
        self.norm_layers = nn.ModuleList(nn.LayerNorm(dim) for _ in levels)
        self.layers = nn.ModuleList(RegionLayer(dim, len(levels), points) for _ in range(depth))
        self.norm_pre1 = nn.LayerNorm(dim)
        self.places: Tensor
        self.register_buffer("places", cell_centres(side, side), persistent=False)

    def forward(self, signed: Tensor) -> Tensor:
        """Images `(B, 3, H, W)` in [-1, 1] to slots `(B, n_carrier, dim)`."""
        return self.gathered(self.backbone(signed, self.levels))

    def gathered(self, features: Sequence[Tensor]) -> Tensor:
        """Slots `(B, n_carrier, dim)` of the foundation model's tokens, class token first, of each level."""
        maps = []
        for tokens, projector, norm in zip(features, self.projectors, self.norm_layers, strict=True):
            maps.append(as_grid(norm(projector(tokens[:, 1:])), self.backbone.grid))
        x: Tensor = self.norm_pre1(self.carrier_tokens).expand(len(maps[0]), -1, -1)
        for layer in self.layers:
            x = layer(x, self.slots_pos, self.places, maps)
        return x


class VfmDecoder(nn.Module):
    """Slots, then a class token and mask tokens, through a causal stack; the mask tokens come out."""

    def __init__(self, *, dim: int, depth: int, heads: int, mlp_dim: int, n_carrier: int) -> None:
        super().__init__()
        self.position_embedding = drawn(1, 1 + TABLE_SIDE**2, dim)
        self.slot_position_embedding = drawn(1, n_carrier, dim)
        self.mask_embedding, self.cls_token = drawn(1, 1, dim), drawn(1, 1, dim)
        self.transformer = SwigluStack(dim, depth, heads, mlp_dim, causal=True)
        self.norm_post1 = nn.LayerNorm(dim)
        # The registers stand last under the causal mask, so that no pixel depends on them; the rest gives the
        # foundation model's features in training.
        self.register_tokens, self.mask_dino = drawn(1, REGISTERS, dim), drawn(1, 1, dim)
        self.norm_post2, self.proj = nn.LayerNorm(dim), nn.Linear(dim, FEATURES)

    def forward(self, slots: Tensor, side: int) -> Tensor:
        """Slots `(B, S, dim)` to a grid `(B, dim, side, side)`."""
        slots = slots + self.slot_position_embedding.to(slots.dtype)
        start, table = self.position_embedding.split([1, TABLE_SIDE**2], dim=1)
        queries = torch.cat([self.cls_token + start, self.mask_embedding + resized_positions(table, side)], dim=1)
        queries = queries.expand(len(slots), -1, -1).to(slots.dtype)
        # Quirk: both go through the one norm; a second one is there, which training uses for its own head.
        mixed = self.transformer(torch.cat([self.norm_post1(slots), self.norm_post1(queries)], dim=1))
        return as_grid(mixed[:, slots.shape[1] + 1 :], side)


class VfmTok(CodeTokenizer):
    """VFMTok (arXiv 2507.08441) on a frozen DINOv2 with registers.

    Args:
        image_size: Side of the images that it gives, in pixels; what it takes is resized for the foundation model.
        ch: Width that `ch_mult` multiplies.
        ch_mult: One factor per level of the pixel decoder, finest first; attention is in its middle only.
        num_res_blocks: Residual blocks per level, less one.
        codebook_size: Number of codes.
        codebook_dim: Width of a code.
        dim: Width of the transformers, and of the pixel decoder's grid.
        depth: Layers of the encoder, and of the decoder.
        heads: Heads of the decoder's transformer.
        mlp_dim: Its MLP's width before SwiGLU takes two thirds of it.
        n_carrier: Number of tokens, a square.
        points: Points that a query looks at in each head and level of features.
        levels: The foundation model's blocks, from 0, whose outputs are the features; the last stands for its output.
        foundation: Arguments of `layers.dinov2.Foundation`.
    """

    def __init__(
        self,
        *,
        image_size: int,
        ch: int = 128,
        ch_mult: Sequence[int] = (1, 1, 2, 2, 4),
        num_res_blocks: int = 1,
        codebook_size: int = 16384,
        codebook_dim: int = 12,
        dim: int = 512,
        depth: int = 6,
        heads: int = 8,
        mlp_dim: int = 2048,
        n_carrier: int = 256,
        points: int = 4,
        levels: Sequence[int] = (5, 11, 17, 23),
        foundation: Mapping[str, Any],
    ) -> None:
        super().__init__()
        size = LdmSize(ch=ch, ch_mult=ch_mult, num_res_blocks=num_res_blocks, z_channels=dim)
        if image_size % size.factor:
            raise MethodError(f"image_size must be a multiple of {size.factor}, got {image_size}")
        if isqrt(n_carrier) ** 2 != n_carrier:
            raise MethodError(f"n_carrier must be a square, for the tokens start out on a grid: got {n_carrier}")
        self.image_size, self.grid, self.max_tokens = image_size, image_size // size.factor, n_carrier
        self.encode_transformer = VfmEncoder(
            foundation, levels, dim=dim, depth=depth, n_carrier=n_carrier, points=points
        )
        self.decode_transformer = VfmDecoder(dim=dim, depth=depth, heads=heads, mlp_dim=mlp_dim, n_carrier=n_carrier)
        self.decoder = LdmDecoder(size, (), running_order=True)
        self.slot_quantize = VectorQuantizer(codebook_size, codebook_dim, l2_norm=True)
        self.slot_quantize.register_buffer("codebook_used", torch.zeros(USED))
        self.pre_slots_quant, self.post_slots_quant = nn.Linear(dim, codebook_dim), nn.Linear(codebook_dim, dim)

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """The only codebook's."""
        return self.slot_quantize.codebook_sizes

    def quantize_slots(self, slots: Tensor) -> Quantized:
        """Differentiable: slots `(B, n_carrier, dim)`, quantised as rows `(B, n_carrier, codebook_dim)`."""
        quantized: Quantized = self.slot_quantize(self.pre_slots_quant(slots))
        return quantized

    def mixed_grid(self, rows: Tensor) -> Tensor:
        """Differentiable: what the pixel decoder takes, `(B, dim, g, g)`, of quantised rows."""
        mixed: Tensor = self.decode_transformer(self.post_slots_quant(rows.to(self.number_type)), self.grid)
        return mixed

    def load_part(self, name: str, tensors: Mapping[str, Tensor]) -> None:  # noqa: ARG002  there is one
        """Take over the frozen DINOv2's weights, which the release leaves out."""
        self.encode_transformer.backbone.load(tensors)

    def draw_parts(self) -> None:
        """Take the drawn weights for DINOv2's: good for timing alone."""
        self.encode_transformer.backbone.loaded = True

    def encode_codes(self, images: Tensor) -> Tensor:
        """Codes `(B, n_carrier)`, in the row-major order of the grid on which the queries start out."""
        return self.quantize_slots(self.encode_transformer(to_signed(images))).codes

    def decode_codes(self, codes: Tensor) -> Tensor:
        """Images of codes `(B, n_carrier)`."""
        return from_signed(at_least_float32(self.decoder(self.mixed_grid(self.slot_quantize.lookup(codes)))))


def release_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `VfmTok` for the release's configuration."""
    transformer = config["transformer"]
    return {
        "image_size": transformer["image_size"],
        "ch": config.get("ch", 128),
        "ch_mult": config.get("decoder_ch_mult", (1, 1, 2, 2, 4)),
        "num_res_blocks": config.get("num_res_blocks", 1),
        "codebook_size": config["codebook_size"],
        "codebook_dim": config["codebook_slots_embed_dim"],
        **{name: transformer[name] for name in ("dim", "depth", "heads", "mlp_dim", "n_carrier")},
        "points": transformer["enc_n_points"],
        "levels": config["vfm"]["levels"],
        "foundation": foundation_arguments(config["vfm"]),
    }


RENAMES = (*LLAMAGEN, *SWIGLU, (r"^encode_transformer\.transformer\.layers\.", "encode_transformer.layers."))

METHOD = TokenizerMethod(
    id="vfmtok",
    title="VFMTok",
    idea="The encoder is a frozen foundation model, from whose features each token gathers a region of its own",
    paper=Paper(
        title="Vision Foundation Models as Effective Visual Tokenizers for Autoregressive Image Generation",
        authors="Anlin Zheng, Xin Wen, Xuanyang Zhang, Chuofan Ma, Tiancai Wang, Gang Yu, Xiangyu Zhang, Xiaojuan Qi",
        year=2025,
        url="https://arxiv.org/abs/2507.08441",
    ),
    build=VfmTok,
    from_release=release_arguments,
    layout=Layout(wrappers=("ema", "model", "state_dict"), renames=RENAMES),
    variants={
        "dinov2": Variant(
            config={"image_size": 336, "foundation": {**DINOV2_L, "input": 336}},
            release=Release("yexiguafu/VFMTok", "DINOv2/tokenizer/vfmtok-tokenizer.pt", licence="Apache-2.0"),
            parts=(DINOV2_L_PART,),
            note="the checkpoint leaves out the frozen DINOv2-L/14 with registers; scored at 256 pixels by its authors",
        )
    },
)
