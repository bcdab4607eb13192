"""TiTok's generators: MaskGIT's parallel decoding over one-dimensional tokens."""

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from reference_impls.layers.bert import ImageBertModel
from reference_impls.layers.masked_sampling import MaskedSampling, SamplerSettings
from reference_impls.layers.uvit import UViT
from tokenmark.contracts import GeneratorMethod, Paper, Release, Tokenizer, Variant

__all__ = ["METHOD", "ImageBert", "MaskedSampling", "SamplerSettings", "UViTBert", "build", "release_arguments"]


class ImageBert(MaskedSampling):
    """The generator of L-32 and B-64: a BERT, whose keys the release stores under `model.`."""

    def __init__(self, **network: Any) -> None:
        super().__init__()
        self.model = ImageBertModel(**network)

    def network(self, ids: Tensor) -> Tensor:
        """Logits `(B, 1 + L, K)` of ids `(B, 1 + L)`."""
        logits: Tensor = self.model(ids)
        return logits


class UViTBert(UViT, MaskedSampling):
    """The generator of S-128: it is a U-ViT, because the release stores its keys without a prefix."""

    def network(self, ids: Tensor) -> Tensor:
        """Logits `(B, 1 + L, K)` of ids `(B, 1 + L)`."""
        logits: Tensor = self(ids)
        return logits


def build(
    tokenizer: Tokenizer,
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
) -> MaskedSampling:
    """A generator that writes for `tokenizer`; sizes are named as in the release's configuration.

    Raises MethodError if the tokenizer does not read the codes that these sizes write.
    """
    network: type[ImageBert | UViTBert] = {"ViT": ImageBert, "UViT": UViTBert}[model_type]
    generator = network(
        vocabulary=codebook_size + 1 + condition_num_classes + 1,
        codebook_size=codebook_size,
        positions=1 + image_seq_len,
        hidden_size=hidden_size,
        num_hidden_layers=num_hidden_layers,
        num_attention_heads=num_attention_heads,
        intermediate_size=intermediate_size,
        dropout=dropout,
        attn_drop=attn_drop,
    )
    generator.bind(
        tokenizer,
        codebook_size=codebook_size,
        image_seq_len=image_seq_len,
        condition_num_classes=condition_num_classes,
    )
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
        "l32-paper": SamplerSettings(steps=8, temperature=9.5, cfg_scale=4.5, cfg_schedule="linear"),
        "b64-paper": SamplerSettings(steps=8, temperature=11.0, cfg_scale=3.0, cfg_schedule="linear"),
        "s128-paper": SamplerSettings(steps=64, temperature=2.8, cfg_scale=6.9, cfg_schedule="power-cosine"),
        "mini": SamplerSettings(steps=8, temperature=2.0, cfg_scale=1.0, cfg_schedule="linear"),
        "mini-unguided": SamplerSettings(steps=8, temperature=2.0, cfg_scale=0.0, cfg_schedule="constant"),
    },
)
