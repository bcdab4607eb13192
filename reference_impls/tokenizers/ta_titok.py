"""TA-TiTok: a TiTok whose decoder is also told in words what the image shows."""

from collections.abc import Mapping
from typing import Any

from reference_impls.tokenizers import titok
from reference_impls.tokenizers.titok import TiTok, later_config
from tokenmark.contracts import Paper, Release, TokenizerMethod, Variant

__all__ = ["METHOD", "TaTiTok", "release_arguments"]


class TaTiTok(TiTok):
    """TA-TiTok (arXiv 2501.07730, section 3.2): the later TiTok, with text features behind its decoder's latents.

    Features are those of all tokens behind the last norm of CLIP's text network (ViT-L/14 at 336 pixels, OpenAI's
    weights), of "A photo of a {class}."; the official evaluation takes the class from the image's own label.

    Args:
        text_tokens: Text tokens.
        text_channels: Channels of their features.
        **sizes: Arguments of `TiTok`.
    """

    def __init__(self, *, text_tokens: int = 77, text_channels: int = 768, **sizes: Any) -> None:
        super().__init__(text=(text_tokens, text_channels), **sizes)


def release_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `TaTiTok` for a release's configuration tree."""
    model = config["model"]["vq_model"]
    return {
        **titok.release_arguments(config),
        # Defaults of the release's code; its configurations do not say them.
        "text_tokens": model.get("text_context_length", 77),
        "text_channels": model.get("text_embed_dim", 768),
    }


def _variant(encoder: str, tokens: int, codebook: int | None) -> Variant:
    kind, token_size = ("vae", 16) if codebook is None else ("vq", 64)
    name = f"{encoder[0]}l{tokens}_{kind}"
    return Variant(
        config=later_config(encoder, "large", tokens, codebook, token_size),
        release=Release(f"turkeyju/tokenizer_tatitok_{name}", licence="Apache-2.0"),
    )


METHOD = TokenizerMethod(
    id="ta-titok",
    title="TA-TiTok",
    idea="A text says what the image shows, so that the tokens need to hold only what the text does not",
    paper=Paper(
        title="Democratizing Text-to-Image Masked Generative Models with Compact Text-Aware One-Dimensional Tokens",
        authors="Dongwon Kim, Ju He, Qihang Yu, Chenglin Yang, Xiaohui Shen, Suha Kwak, Liang-Chieh Chen",
        year=2025,
        url="https://arxiv.org/abs/2501.07730",
    ),
    build=TaTiTok,
    text="clip-text-vit-l14-336",
    from_release=release_arguments,
    variants={
        "bl32-vq": _variant("base", 32, 8192),
        "bl64-vq": _variant("base", 64, 8192),
        "bl128-vq": _variant("base", 128, 8192),
        "bl32-vae": _variant("base", 32, None),
        "bl64-vae": _variant("base", 64, None),
        "sl128-vae": _variant("small", 128, None),
    },
)
