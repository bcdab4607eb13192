"""TiTok's generators: MaskGIT's parallel decoding over one-dimensional tokens."""

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from reference_impls.layers.bert import ImageBertModel
from reference_impls.layers.masked_sampling import MaskedSampling, SamplerSettings
from reference_impls.layers.uvit import UViT
from tokenmark.contracts import GeneratorMethod, MethodError, Paper, Preset, Release, Tokenizer, Variant

__all__ = ["METHOD", "ImageBert", "MaskedSampling", "SamplerSettings", "UViTBert", "build", "release_arguments"]


class ImageBert(MaskedSampling):
    """The generator of L-32 and B-64: a BERT, whose keys the release stores under `model.`.

    Args:
        codebook_size: Number of codes, K.
        image_seq_len: Tokens of an image, L.
        condition_num_classes: Number of classes.
        sizes: As `ImageBertModel` takes them.
    """

    def __init__(self, *, codebook_size: int, image_seq_len: int, condition_num_classes: int, **sizes: Any) -> None:
        super().__init__()
        self.codebook_size, self.image_seq_len, self.classes = codebook_size, image_seq_len, condition_num_classes
        self.model = ImageBertModel(
            **_sequence(codebook_size, image_seq_len, condition_num_classes), codebook_size=codebook_size, **sizes
        )

    def network(self, ids: Tensor) -> Tensor:
        """Logits `(B, 1 + L, K)` of ids `(B, 1 + L)`."""
        logits: Tensor = self.model(ids)
        return logits


class UViTBert(UViT, MaskedSampling):
    """The generator of S-128: it is a U-ViT, because the release stores its keys without a prefix.

    Args:
        codebook_size: Number of codes, K.
        image_seq_len: Tokens of an image, L.
        condition_num_classes: Number of classes.
        sizes: As `UViT` takes them.
    """

    def __init__(self, *, codebook_size: int, image_seq_len: int, condition_num_classes: int, **sizes: Any) -> None:
        sequence = _sequence(codebook_size, image_seq_len, condition_num_classes)
        super().__init__(**sequence, codebook_size=codebook_size, **sizes)
        self.codebook_size, self.image_seq_len, self.classes = codebook_size, image_seq_len, condition_num_classes

    def network(self, ids: Tensor) -> Tensor:
        """Logits `(B, 1 + L, K)` of ids `(B, 1 + L)`."""
        logits: Tensor = self(ids)
        return logits


def _sequence(codes: int, length: int, classes: int) -> dict[str, int]:
    """What a network must know of ids: codes, the mask, classes and the dropped one, of which the first is a class."""
    return {"vocabulary": codes + 1 + classes + 1, "positions": 1 + length}


def build(
    tokenizer: Tokenizer | None,
    *,
    model_type: Literal["ViT", "UViT"],
    codebook_size: int,
    image_seq_len: int,
    condition_num_classes: int,
    hidden_size: int,
    num_hidden_layers: int,
    num_attention_heads: int,
    intermediate_size: int,
    dropout: float = 0.1,
    attn_drop: float = 0.1,
) -> ImageBert | UViTBert:
    """A generator that writes for `tokenizer`; sizes are named as in the release's configuration.

    Without one it gives codes, but no images. Raises MethodError if the tokenizer does not read the codes that these
    sizes write.
    """
    if model_type not in ("ViT", "UViT"):
        raise MethodError(f"model_type must be ViT or UViT, got '{model_type}'")
    if hidden_size % num_attention_heads:
        raise MethodError(f"hidden_size must be a multiple of num_attention_heads, got {hidden_size}")
    network: type[ImageBert] | type[UViTBert] = ImageBert if model_type == "ViT" else UViTBert
    generator = network(
        codebook_size=codebook_size,
        image_seq_len=image_seq_len,
        condition_num_classes=condition_num_classes,
        hidden_size=hidden_size,
        num_hidden_layers=num_hidden_layers,
        num_attention_heads=num_attention_heads,
        intermediate_size=intermediate_size,
        dropout=dropout,
        attn_drop=attn_drop,
    )
    generator.attach(tokenizer)
    return generator


def release_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `build`, without its tokenizer, for a release's configuration tree."""
    model = config["model"]
    return {"codebook_size": model["vq_model"]["codebook_size"], **model["generator"]}


BASE_CONFIG: Mapping[str, Any] = {
    "model_type": "ViT",
    "codebook_size": 4096,
    "condition_num_classes": 1000,
    "hidden_size": 768,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 3072,
}


def _one_d_piece(size: str) -> Variant:
    """The generator over One-D-Piece's codes, all 256 of them; sizes are those of the fork's own configuration."""
    return Variant(
        config={**BASE_CONFIG, "image_seq_len": 256},
        tokenizer=f"one-d-piece/{size}256",
        release=Release(f"turing-motors/MaskGIT_One-D-Piece-{size.upper()}-256", licence="Apache-2.0"),
    )


def _titok_row(variant: str, gfid: str, settings: SamplerSettings) -> Preset:
    """A row of TiTok's table; the commands beside it run on 8 GPUs."""
    return Preset(
        settings=settings,
        variants=(variant,),
        classes="cycled",
        seed="42 + rank",
        world_size=8,
        batch_size=125,
        printed=f"README_TiTok.md of bytedance/1d-tokenizer: gFID {gfid}",
    )


def _one_d_piece_row(size: str, gfid: str, temperature: float, cfg_scale: float) -> Preset:
    """A row of One-D-Piece's table.

    Whether logits are annealed its configuration leaves out, where its script looks for it: on, as for TiTok's.
    """
    settings = SamplerSettings(steps=16, temperature=temperature, cfg_scale=cfg_scale, cfg_schedule="power-cosine")
    return Preset(
        settings=settings,
        variants=(f"one-d-piece-{size}",),
        classes="cycled",
        seed="42",
        world_size=1,
        batch_size=125,
        printed=f"README.md of turingmotors/One-D-Piece: gFID {gfid}",
    )


METHOD = GeneratorMethod(
    id="titok-maskgit",
    title="TiTok MaskGIT",
    idea="MaskGIT over TiTok's few tokens: all masked ones are predicted at once, the surest are kept, in few steps",
    paper=Paper(
        title="An Image is Worth 32 Tokens for Reconstruction and Generation",
        authors="Qihang Yu, Mark Weber, Xueqing Deng, Xiaohui Shen, Daniel Cremers, Liang-Chieh Chen",
        year=2024,
        url="https://arxiv.org/abs/2406.07550",
    ),
    settings=SamplerSettings,
    build=build,
    variants={
        "l32": Variant(
            config={**BASE_CONFIG, "image_seq_len": 32},
            tokenizer="titok/l32",
            release=Release("yucornetto/generator_titok_l32_imagenet", licence="Apache-2.0"),
        ),
        "b64": Variant(
            config={**BASE_CONFIG, "image_seq_len": 64},
            tokenizer="titok/b64",
            release=Release("yucornetto/generator_titok_b64_imagenet", licence="Apache-2.0"),
        ),
        "s128": Variant(
            config={
                "model_type": "UViT",
                "codebook_size": 4096,
                "image_seq_len": 128,
                "condition_num_classes": 1000,
                "hidden_size": 1024,
                "num_hidden_layers": 20,
                "num_attention_heads": 16,
                "intermediate_size": 4096,
            },
            tokenizer="titok/s128",
            release=Release("yucornetto/generator_titok_s128_imagenet", licence="Apache-2.0"),
        ),
        "one-d-piece-s": _one_d_piece("s"),
        "one-d-piece-b": _one_d_piece("b"),
        "one-d-piece-l": _one_d_piece("l"),
        "mini-16": Variant(
            config={
                "model_type": "ViT",
                "codebook_size": 256,
                "image_seq_len": 16,
                "condition_num_classes": 10,
                "hidden_size": 64,
                "num_hidden_layers": 4,
                "num_attention_heads": 4,
                "intermediate_size": 256,
            },
            weights="titok-maskgit-mini-16",
            tokenizer="titok/mini-16",
            note="32x32 images of 10 classes, trained in this repository",
        ),
    },
    presets={
        "titok-l32-paper": _titok_row(
            "l32", "2.77", SamplerSettings(steps=8, temperature=9.5, cfg_scale=4.5, cfg_schedule="linear")
        ),
        "titok-b64-paper": _titok_row(
            "b64", "2.48", SamplerSettings(steps=8, temperature=11.0, cfg_scale=3.0, cfg_schedule="linear")
        ),
        "titok-s128-paper": _titok_row(
            "s128", "1.97", SamplerSettings(steps=64, temperature=2.8, cfg_scale=6.9, cfg_schedule="power-cosine")
        ),
        "one-d-piece-s-paper": _one_d_piece_row("s", "2.67", temperature=3.0, cfg_scale=12.5),
        "one-d-piece-b-paper": _one_d_piece_row("b", "2.70", temperature=2.5, cfg_scale=8.5),
        "one-d-piece-l-paper": _one_d_piece_row("l", "2.35", temperature=3.0, cfg_scale=5.5),
        "mini": Preset(
            settings=SamplerSettings(steps=8, temperature=2.0, cfg_scale=1.0, cfg_schedule="linear"),
            variants=("mini-16",),
        ),
        "mini-unguided": Preset(
            settings=SamplerSettings(steps=8, temperature=2.0, cfg_scale=0.0, cfg_schedule="constant"),
            variants=("mini-16",),
        ),
    },
)
