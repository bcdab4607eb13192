"""BSQ-ViT: a vision transformer whose tokens are corners of a cube on the unit sphere."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.binary import BinaryQuantizer
from reference_impls.layers.grid_vq import as_grid
from reference_impls.layers.precision import at_least_float32
from reference_impls.layers.quantizers import Quantized
from reference_impls.layers.titok_vit import Block, VitSize
from reference_impls.layers.tokenizer import CodeTokenizer, from_signed, to_signed
from tokenmark.contracts import Layout, MethodError, Paper, TokenizerMethod, Variant

__all__ = ["METHOD", "BsqVit", "release_arguments"]


class Encoder(nn.Module):
    """Patches of pixels to features."""

    def __init__(self, size: VitSize, patches: int) -> None:
        super().__init__()
        self.patch_size = size.patch_size
        self.positional_embedding = _positions(patches, size.width)
        self.conv1 = nn.Linear(3 * size.patch_size**2, size.width, bias=False)
        self.ln_pre = nn.LayerNorm(size.width)
        self.transformer = nn.Sequential(*(Block(size) for _ in range(size.layers)))
        self.ln_post = nn.LayerNorm(size.width)

    def forward(self, images: Tensor) -> Tensor:
        """Images `(B, 3, S, S)` to features `(B, patches, width)`; a patch reads (colour, row, column)."""
        # torch's pixel_unshuffle has this order too, but drops channels of an empty batch.
        side, patch = images.shape[2] // self.patch_size, self.patch_size
        grid = images.reshape(len(images), 3, side, patch, side, patch).permute(0, 2, 4, 1, 3, 5)
        patches = grid.reshape(len(images), side**2, 3 * patch**2)
        embedded = self.conv1(patches) + self.positional_embedding
        out: Tensor = self.ln_post(self.transformer(self.ln_pre(embedded)))
        return out


class Decoder(nn.Module):
    """Features to patches of pixels."""

    def __init__(self, size: VitSize, patches: int, hidden: int) -> None:
        super().__init__()
        self.patch_size, self.grid = size.patch_size, int(patches**0.5)
        self.positional_embedding = _positions(patches, size.width)
        self.ffn = nn.Sequential(nn.Linear(size.width, hidden), nn.Tanh())
        self.conv_out = nn.Linear(hidden, 3 * size.patch_size**2)
        self.ln_pre = nn.LayerNorm(size.width)
        self.transformer = nn.Sequential(*(Block(size) for _ in range(size.layers)))
        self.ln_post = nn.LayerNorm(size.width)

    def forward(self, features: Tensor) -> Tensor:
        """Features `(B, patches, width)` to images `(B, 3, S, S)`."""
        hidden = self.transformer(self.ln_pre(features + self.positional_embedding))
        pixels = self.conv_out(self.ffn(self.ln_post(hidden)))
        return functional.pixel_shuffle(as_grid(pixels, self.grid), self.patch_size)


def _positions(patches: int, width: int) -> nn.Parameter:
    return nn.Parameter(nn.init.normal_(torch.empty(patches, width), std=0.02))


class BsqVit(CodeTokenizer):
    """BSQ-ViT (arXiv 2406.07548, section 3) for images; pixels are in [-1, 1] inside.

    Args:
        image_size: Side of the images, in pixels.
        encoder: Fields of `VitSize`.
        decoder: Fields of `VitSize`; its patch size must be the encoder's.
        bits: Bits of a token.
        group: Bits of a group, by which training takes the entropy apart; a checkpoint carries a table of that size.
        hidden: Width of the decoder's last layer but one.
        l2_norm: Whether latents are put on the unit sphere before they are quantised.
        unit_codes: Whether codes lie on it too, and are not +-1.
    """

    def __init__(
        self,
        *,
        image_size: int,
        encoder: Mapping[str, Any],
        decoder: Mapping[str, Any],
        bits: int,
        group: int = 9,
        hidden: int = 3072,
        l2_norm: bool = True,
        unit_codes: bool = True,
    ) -> None:
        super().__init__()
        sizes = VitSize(**encoder), VitSize(**decoder)
        patch_size = sizes[0].patch_size
        if sizes[1].patch_size != patch_size or image_size % patch_size:
            raise MethodError(
                f"both patch sizes must be the same and divide the image size {image_size},"
                f" got {patch_size} and {sizes[1].patch_size}"
            )
        if bits % group:
            raise MethodError(f"bits must be a multiple of group, got {bits} and {group}")
        self.image_size, self.group = image_size, group
        self.max_tokens = (image_size // patch_size) ** 2
        self.encoder = Encoder(sizes[0], self.max_tokens)
        self.decoder = Decoder(sizes[1], self.max_tokens, hidden)
        self.quantize = BinaryQuantizer(
            bits,
            l2_norm=l2_norm,
            scale=bits**-0.5 if unit_codes else 1.0,
            most_significant_first=True,
            commitment_cost=0.0,  # as all releases are trained
        )
        # Tables of the checkpoint, which upstream adds floats with; codes are integers here.
        for name, count in (("basis", bits), ("group_basis", group)):
            self.quantize.register_buffer(name, 2 ** torch.arange(count - 1, -1, -1))
        self.quant_embed = nn.Linear(sizes[0].width, bits)
        self.post_quant_embed = nn.Linear(bits, sizes[1].width)

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """One, of 2 ** bits."""
        return self.quantize.codebook_sizes

    def encode_codes(self, images: Tensor) -> Tensor:
        """Codes `(B, patches)` in row-major order; the first channel is the most significant bit."""
        return self.quantize_signed(to_signed(images)).codes

    def decode_codes(self, codes: Tensor) -> Tensor:
        """Images of codes `(B, patches)`."""
        return from_signed(self.decode_signed(self.quantize.lookup(codes)))

    def quantize_signed(self, signed: Tensor) -> Quantized:
        """Differentiable: latents `(B, patches, bits)` of images in [-1, 1], quantised."""
        quantized: Quantized = self.quantize(self.quant_embed(self.encoder(signed)))
        return quantized

    def decode_signed(self, latents: Tensor) -> Tensor:
        """Differentiable: images in [-1, 1], not clamped, of quantised latents `(B, patches, bits)`."""
        return at_least_float32(self.decoder(self.post_quant_embed(latents.to(self.number_type))))


USED = frozenset({"image_size", "patch_size", "width", "layers", "heads", "mlp_ratio", "dim_ffn_output"})
TRAINING = frozenset({"drop_rate", "attn_drop_rate", "drop_path_rate"})


def release_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `BsqVit` for the release's model parameters.

    Raises:
        MethodError: it asks for what no release has, such as video or the logit-Laplace head.
    """
    sides = {"encoder": config["vitconfig"], "decoder": config.get("dvitconfig") or config["vitconfig"]}
    unknown = {name for side in sides.values() for name in side} - USED - TRAINING
    if unknown or config.get("logit_laplace", False):
        names = sorted(unknown) or ["logit_laplace"]
        raise MethodError(f"BSQ-ViT is written for the released image models, without {', '.join(names)}")
    fields = ("width", "layers", "heads", "patch_size", "mlp_ratio")
    return {
        "image_size": sides["encoder"]["image_size"],
        **{name: {field: side[field] for field in fields} for name, side in sides.items()},
        "bits": config["embed_dim"],
        "group": config.get("embed_group_size", 9),
        "hidden": sides["decoder"].get("dim_ffn_output", 3072),
        "l2_norm": config.get("l2_norm", False),
        "unit_codes": config.get("post_q_l2_norm", False),
    }


def _variant(image_size: int, bits: int, group: int) -> Variant:
    vit = {"width": 768, "layers": 12, "heads": 12, "patch_size": 8, "mlp_ratio": 4}
    config = {"image_size": image_size, "encoder": vit, "decoder": vit, "bits": bits, "group": group}
    return Variant(
        config=config, note="weights at utexas.box.com, linked from github.com/zhaoyue-zephyrus/bsq-vit; MIT"
    )


METHOD = TokenizerMethod(
    id="bsq-vit",
    title="BSQ-ViT",
    idea="Latents are put on the unit sphere and rounded to the nearest corner of a cube: one bit per dimension",
    paper=Paper(
        title="Image and Video Tokenization with Binary Spherical Quantization",
        authors="Yue Zhao, Yuanjun Xiong, Philipp Krähenbühl",
        year=2024,
        url="https://arxiv.org/abs/2406.07548",
    ),
    build=BsqVit,
    from_release=release_arguments,
    # The averaged weights are wrapped once more than the plain ones.
    layout=Layout(wrappers=("ema_state_dict", "state_dict"), renames=((r"^(module\.)+", ""), (r"\.resblocks\.", "."))),
    variants={
        "imagenet-128": _variant(128, 18, 9),
        "imagenet-256-b18g18": _variant(256, 18, 1),
        "imagenet-256-b18g2": _variant(256, 18, 9),
        "imagenet-256-b36g36": _variant(256, 36, 1),
    },
)
