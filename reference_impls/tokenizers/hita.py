"""Hita: holistic tokens in front of the patch tokens of a VQGAN, read with the help of a frozen DINOv2."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from reference_impls.layers.dinov2 import DINOV2_L, DINOV2_L_PART, Foundation, foundation_arguments
from reference_impls.layers.grid_vq import as_grid, as_rows
from reference_impls.layers.ldm_conv import LLAMAGEN, LdmDecoder, LdmEncoder, LdmSize
from reference_impls.layers.precision import at_least_float32
from reference_impls.layers.quantizers import Quantized, VectorQuantizer
from reference_impls.layers.swiglu_blocks import SWIGLU, Projector, SwigluStack, drawn, resized_positions
from reference_impls.layers.token_checks import bits_of
from reference_impls.layers.tokenizer import CodeTokenizer, codes_of, from_signed, to_signed
from tokenmark.contracts import Layout, MethodError, Paper, Release, TokenizerMethod, Tokens, Variant

__all__ = ["METHOD", "Hita", "release_arguments"]

USED = 65536
"""Length of the training statistics that a checkpoint carries along for each codebook."""


class HitaEncoder(nn.Module):
    """Carrier tokens, a foundation model's tokens and the convolutions' grid, mixed, then read in causal order."""

    def __init__(self, foundation: Mapping[str, Any], **sizes: int) -> None:
        super().__init__()
        width, depth, heads = sizes["dim"], sizes["depth"], sizes["heads"]
        inner, mlp_dim = heads * sizes["dim_head"], sizes["mlp_dim"]
        self.carrier_tokens = drawn(1, sizes["n_carrier"], width)
        self.pos_embed = drawn(1, sizes["table_side"] ** 2, width)
        self.backbone = Foundation(**foundation)
        self.proj = Projector(self.backbone.size.dim, width)
        self.norm_pre1 = nn.LayerNorm(width)
        self.transformer1 = SwigluStack(width, depth, heads, mlp_dim, inner=inner, causal=False, qkv_bias=False)
        self.norm_pre2 = nn.LayerNorm(width)
        self.transformer2 = SwigluStack(width, depth, heads, mlp_dim, causal=True)

    def forward(self, grid: Tensor, foundation: Tensor) -> tuple[Tensor, Tensor]:
        """A grid `(B, dim, g, g)` and foundation tokens `(B, L, C)` to slots `(B, S, dim)` and rows `(B, g*g, dim)`."""
        rows = as_rows(grid)
        rows = rows + resized_positions(self.pos_embed, grid.shape[2]).to(rows.dtype)
        carrier = self.carrier_tokens.expand(len(rows), -1, -1).to(rows.dtype)
        mixed = torch.cat([carrier, self.proj(foundation).to(rows.dtype), rows], dim=1)
        mixed = self.transformer1(self.norm_pre1(mixed))
        kept = torch.cat([mixed[:, : carrier.shape[1]], mixed[:, -rows.shape[1] :]], dim=1)
        slots, patches = self.transformer2(self.norm_pre2(kept)).split([carrier.shape[1], rows.shape[1]], dim=1)
        return slots, patches


class HitaDecoder(nn.Module):
    """Slots, then patches, through a causal stack; its output is read some places early."""

    def __init__(self, *, foundation_dim: int | None, **sizes: int) -> None:
        super().__init__()
        width = sizes["dim"]
        self.shift_k = sizes["shift_k"]
        self.position_embedding = drawn(1, sizes["table_side"] ** 2, width)
        self.slot_position_embedding = drawn(1, sizes["n_carrier"], width)
        self.transformer = SwigluStack(width, sizes["depth"], sizes["heads"], sizes["mlp_dim"], causal=True)
        self.norm = nn.LayerNorm(width)
        self.reconstructs_foundation = foundation_dim is not None
        if foundation_dim is not None:
            self.mask_embedding = drawn(1, 1, width)
            self.norm_vfm = nn.LayerNorm(width)
            self.proj = nn.Linear(width, foundation_dim)

    def forward(self, slots: Tensor, grid: Tensor) -> Tensor:
        """Slots `(B, S, dim)` and a grid `(B, dim, g, g)` to a grid of the same shape."""
        rows = as_rows(grid)
        rows = rows + resized_positions(self.position_embedding, grid.shape[2]).to(rows.dtype)
        slots = slots + self.slot_position_embedding.to(slots.dtype)
        mixed = self.transformer(self.norm(torch.cat([slots, rows], dim=1)))
        # Row i of the output stands `shift_k` places before row i of the input, which holistic tokens fill at first;
        # the last `shift_k` rows go unused.
        first = slots.shape[1] - self.shift_k
        return as_grid(mixed[:, first : first + rows.shape[1]], grid.shape[2])

    def foundation_features(self, slots: Tensor, side: int) -> Tensor:
        """What slots `(B, S, dim)`, without positions, tell of the foundation model's patches: `(B, side**2, C)`.

        The slots are causal among themselves and see no query; the queries see everything.
        """
        queries = self.mask_embedding + resized_positions(self.position_embedding, side)
        count, length = slots.shape[1], slots.shape[1] + side**2
        places = torch.arange(length, device=slots.device)
        mask = (places[:, None] >= count) | (places[:, None] >= places)
        tokens = torch.cat([slots, queries.expand(len(slots), -1, -1).to(slots.dtype)], dim=1)
        out: Tensor = self.proj(self.transformer(self.norm_vfm(tokens), mask)[:, count:])
        return out


class Hita(CodeTokenizer):
    """Hita (arXiv 2507.02358): holistic tokens, which learned queries gather from the whole image, and patch tokens.

    The two have codebooks of their own. A code is the holistic tokens, then the patch tokens in row-major order, whose
    indices come behind those of the holistic codebook; a token is stored in the bits of its own codebook.

    Args:
        image_size: Side of the images, in pixels; a multiple of 2 to the number of levels less one.
        ch: Width that `ch_mult` multiplies.
        ch_mult: One factor per level of the convolutions, finest first; attention is at the coarsest level.
        num_res_blocks: Residual blocks per level of the convolutional encoder.
        codebook_size: Number of codes of the patch tokens, and of the holistic ones.
        codebook_dim: Width of a patch token's code.
        slot_dim: Width of a holistic token's code.
        dim: Width of the transformers, and of the convolutions' grid.
        depth: Blocks of each of the three transformers.
        heads: Their heads.
        dim_head: Width of a head in the first of them.
        mlp_dim: Their MLPs' width before SwiGLU takes two thirds of it.
        n_carrier: Number of holistic tokens.
        shift_k: Places by which the decoder's output is read early; at most `n_carrier`.
        table_side: Side of the grid that the position tables were made for.
        foundation: Arguments of `layers.dinov2.Foundation`.
        reconstructs_foundation: Whether the decoder also has the head that gives the foundation model's features
            (Hita-Ultra), which is for training only.
    """

    def __init__(
        self,
        *,
        image_size: int,
        ch: int = 128,
        ch_mult: Sequence[int] = (1, 1, 2, 2, 4),
        num_res_blocks: int = 2,
        codebook_size: int = 16384,
        codebook_dim: int = 8,
        slot_dim: int = 12,
        dim: int = 512,
        depth: int = 3,
        heads: int = 8,
        dim_head: int = 64,
        mlp_dim: int = 2048,
        n_carrier: int = 128,
        shift_k: int = 4,
        table_side: int = 21,
        foundation: Mapping[str, Any],
        reconstructs_foundation: bool = False,
    ) -> None:
        super().__init__()
        size = LdmSize(ch=ch, ch_mult=ch_mult, num_res_blocks=num_res_blocks, z_channels=dim)
        if image_size % size.factor:
            raise MethodError(f"image_size must be a multiple of {size.factor}, got {image_size}")
        if not 0 <= shift_k <= n_carrier:
            raise MethodError(f"shift_k must be 0 to n_carrier, which is {n_carrier}, got {shift_k}")
        self.image_size, self.grid, self.n_carrier = image_size, image_size // size.factor, n_carrier
        self.max_tokens = n_carrier + self.grid**2
        coarsest = (size.levels - 1,)
        sizes = {"dim": dim, "depth": depth, "heads": heads, "mlp_dim": mlp_dim, "n_carrier": n_carrier}
        sizes["table_side"] = table_side
        self.encoder = LdmEncoder(size, coarsest)
        self.decoder = LdmDecoder(size, coarsest, running_order=True)
        self.encode_transformer = HitaEncoder(foundation, dim_head=dim_head, **sizes)
        foundation_dim = self.encode_transformer.backbone.size.dim if reconstructs_foundation else None
        self.decode_transformer = HitaDecoder(foundation_dim=foundation_dim, shift_k=shift_k, **sizes)
        self.quantize = VectorQuantizer(codebook_size, codebook_dim, l2_norm=True)
        self.slot_quantize = VectorQuantizer(codebook_size, slot_dim, l2_norm=True)
        for quantizer in (self.quantize, self.slot_quantize):
            quantizer.register_buffer("codebook_used", torch.zeros(USED))
        self.quant_conv, self.post_quant_conv = nn.Conv2d(dim, codebook_dim, 1), nn.Conv2d(codebook_dim, dim, 1)
        self.pre_slots_quant, self.post_slots_quant = nn.Linear(dim, slot_dim), nn.Linear(slot_dim, dim)

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Both codebooks, one behind the other."""
        return (self.slot_quantize.codebook_size + self.quantize.codebook_size,)

    @property
    def bits_per_token(self) -> float:
        """What is stored: the place of a token says which of the two codebooks, equally large, is its own."""
        return bits_of(self.quantize.codebook_size)

    def _check_tokens(self, tokens: Tokens) -> None:
        super()._check_tokens(tokens)
        slots, patches = codes_of(tokens).tensor_split([self.n_carrier], dim=1)
        size = self.slot_quantize.codebook_size
        if (slots >= size).any() or (patches < size).any():
            raise MethodError(
                f"the first {self.n_carrier} codes are holistic, 0 to {size - 1}, and the patches' are {size} or more"
            )

    def _encode(self, images: Tensor, tokens: int | None, generator: torch.Generator | None) -> Tokens:
        found = super()._encode(images, tokens, generator)
        return Tokens(lengths=found.lengths, bits=found.lengths.double() * self.bits_per_token, codes=found.codes)

    def encode_latents(self, signed: Tensor) -> tuple[Tensor, Tensor]:
        """Differentiable: slots `(B, S, slot_dim)` and a grid `(B, codebook_dim, g, g)` of images in [-1, 1]."""
        (foundation,) = self.encode_transformer.backbone(signed)
        slots, rows = self.encode_transformer(self.encoder(signed), foundation)
        return self.pre_slots_quant(slots), self.quant_conv(as_grid(rows, self.grid))

    def quantize_latents(self, slots: Tensor, grid: Tensor) -> tuple[Quantized, Quantized]:
        """Differentiable: both quantised, as rows `(B, S, slot_dim)` and `(B, g*g, codebook_dim)`."""
        return self.slot_quantize(slots), self.quantize(as_rows(grid))

    def mixed_grid(self, slots: Tensor, rows: Tensor) -> Tensor:
        """Differentiable: what the convolutional decoder takes, `(B, dim, g, g)`, of both kinds of quantised rows."""
        slots, grid = slots.to(self.number_type), as_grid(rows, self.grid).to(self.number_type)
        mixed: Tensor = self.decode_transformer(self.post_slots_quant(slots), self.post_quant_conv(grid))
        return mixed

    def foundation_features(self, slots: Tensor) -> Tensor:
        """Differentiable: the foundation model's patch tokens, reconstructed from quantised slots (Hita-Ultra)."""
        rows = self.post_slots_quant(slots.to(self.number_type))
        return self.decode_transformer.foundation_features(rows, self.encode_transformer.backbone.grid)

    def load_part(self, name: str, tensors: Mapping[str, Tensor]) -> None:  # noqa: ARG002  there is one
        """Take over the frozen DINOv2's weights, which the release leaves out."""
        self.encode_transformer.backbone.load(tensors)

    def draw_parts(self) -> None:
        """Take the drawn weights for DINOv2's: good for timing alone."""
        self.encode_transformer.backbone.loaded = True

    def encode_codes(self, images: Tensor) -> Tensor:
        """Codes `(B, S + g*g)`: holistic, then patches."""
        slots, patches = self.quantize_latents(*self.encode_latents(to_signed(images)))
        return torch.cat([slots.codes, patches.codes + self.slot_quantize.codebook_size], dim=1)

    def decode_codes(self, codes: Tensor) -> Tensor:
        """Images of codes `(B, S + g*g)`."""
        slots, patches = codes.tensor_split([self.n_carrier], dim=1)
        patches = patches - self.slot_quantize.codebook_size
        mixed = self.mixed_grid(self.slot_quantize.lookup(slots), self.quantize.lookup(patches))
        return from_signed(at_least_float32(self.decoder(mixed)))


def release_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `Hita` for the release's configuration."""
    transformer = config["transformer"]
    ch_mult = config.get("encoder_ch_mult", (1, 1, 2, 2, 4))
    names = ("dim", "depth", "heads", "dim_head", "mlp_dim", "n_carrier", "shift_k")
    return {
        "image_size": config["image_size"],
        "ch": config.get("ch", 128),
        "ch_mult": ch_mult,
        "num_res_blocks": config.get("num_res_blocks", 2),
        "codebook_size": config["codebook_size"],
        "codebook_dim": config["codebook_embed_dim"],
        "slot_dim": config["codebook_slots_embed_dim"],
        **{name: transformer[name] for name in names},
        "table_side": transformer["image_size"] // 2 ** (len(ch_mult) - 1),
        "foundation": foundation_arguments(config["vfm"]),
        "reconstructs_foundation": transformer["enable_vfm_recon"],
    }


NOTE = "the checkpoint leaves out the frozen DINOv2-L/14 with registers; scored at 256 pixels by its authors"


def _release(file: str) -> Release:
    return Release("yexiguafu/hita-gen", file, licence="MIT")


METHOD = TokenizerMethod(
    id="hita",
    title="Hita",
    idea="Holistic tokens of the whole image stand before its patch tokens, and the decoder reads both in causal order",
    paper=Paper(
        title="Holistic Tokenizer for Autoregressive Image Generation",
        authors="Anlin Zheng, Haochen Wang, Yucheng Zhao, Weipeng Deng, Tiancai Wang, Xiangyu Zhang, Xiaojuan Qi",
        year=2025,
        url="https://arxiv.org/abs/2507.02358",
    ),
    build=Hita,
    from_release=release_arguments,
    layout=Layout(wrappers=("ema", "model", "state_dict"), renames=(*LLAMAGEN, *SWIGLU)),
    variants={
        "vanilla": Variant(
            config={"image_size": 336, "foundation": {**DINOV2_L, "input": 224}},
            release=_release("vanilla/tokenizer/hita-tok.pt"),
            parts=(DINOV2_L_PART,),
            note=NOTE,
        ),
        "ultra": Variant(
            config={"image_size": 336, "foundation": {**DINOV2_L, "input": 224}, "reconstructs_foundation": True},
            release=_release("ultra/tokenizer/hita-ultra.pt"),
            parts=(DINOV2_L_PART,),
            note=NOTE,
        ),
    },
)
