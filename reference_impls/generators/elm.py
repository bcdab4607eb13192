"""ELM's generators: LlamaGen's transformer over a binary tokenizer's codes, autoregressive or masked."""

from collections.abc import Mapping
from typing import Any, Literal

from reference_impls.layers.elm_gpt import ElmAr, ElmMlm, ElmNetwork, ElmSettings
from tokenmark.contracts import GeneratorMethod, MethodError, Paper, Preset, Release, Tokenizer, Variant

__all__ = ["METHOD", "ElmSettings", "build", "release_arguments"]


def build(tokenizer: Tokenizer | None, *, kind: Literal["ar", "mlm"], **network: Any) -> ElmNetwork:
    """A generator that writes for `tokenizer`; sizes are named as in the release's `ModelArgs`.

    Raises MethodError if the tokenizer does not read the codes that these sizes write.
    """
    if kind not in ("ar", "mlm"):
        raise MethodError(f"kind must be ar or mlm, got '{kind}'")
    generator = ElmAr(**network) if kind == "ar" else ElmMlm(**network)
    generator.attach(tokenizer)
    return generator


def release_arguments(config: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The arguments of `build`, without its tokenizer, for the release's `ModelArgs`.

    Raises MethodError for what no released model has.
    """
    for name, value in {"pos_type": "rope2d", "attn_type": "sdp", "use_adaLN": False}.items():
        if config.get(name, value) != value:
            raise MethodError(f"released models of ELM have {name} {value}, got {config[name]}")
    names = ("dim", "n_layer", "n_head", "token_each", "code_dim", "block_size", "num_classes", "multiple_of")
    return {"kind": kind, **{name: config[name] for name in names if name in config}}


SIZES: Mapping[str, tuple[int, int, int]] = {
    "L": (1024, 24, 16),
    "XL": (1280, 36, 20),
    "XXL": (1536, 48, 24),
    "2B": (1792, 48, 28),
}
"""Width, blocks and heads."""
AR = {
    "L": ("1-16", "2-8", "2-10", "2-12"),
    "XL": ("1-16", "2-8", "2-10", "2-12"),
    "XXL": ("1-16", "2-10", "2-12"),
    "2B": ("2-12",),
}
"""Parts of a token and bits of a part, of which there is an autoregressive release."""
MLM = {"L": ("1-16",), "XL": ("1-16",), "XXL": ("1-16",)}
"""And a masked one."""


def _variant(kind: str, size: str, code: str) -> Variant:
    parts, bits = code.split("-")
    dim, n_layer, n_head = SIZES[size]
    return Variant(
        config={
            "kind": kind,
            "dim": dim,
            "n_layer": n_layer,
            "n_head": n_head,
            "token_each": int(parts),
            "code_dim": int(bits),
            "block_size": 256,
            "num_classes": 1000,
        },
        release=Release("xuantonglll/ELM", f"gpt/{'mlm' if kind == 'mlm' else ''}{size}-{code}.pth"),
        note="writes codes only: its tokenizer, a binary autoencoder, is not implemented here",
    )


METHOD = GeneratorMethod(
    id="elm",
    title="ELM",
    idea="Llama over binary codes that are cut in parts, so that a token of 24 bits needs only small vocabularies",
    paper=Paper(
        title="Elucidating the design space of language models for image generation",
        authors="Xuantong Liu, Shaozhe Hao, Xianbiao Qi, Tianyang Hu, Jun Wang, Rong Xiao, Yuan Yao",
        year=2024,
        url="https://arxiv.org/abs/2410.16257",
    ),
    settings=ElmSettings,
    build=build,
    variants={
        f"{kind}-{size.lower()}-{code}": _variant(kind, size, code)
        for kind, released in (("ar", AR), ("mlm", MLM))
        for size, codes in released.items()
        for code in codes
    },
    presets={
        # The release's script, which draws 32,000 images; it names no number.
        "elm-ar-l-2-10-paper": Preset(
            settings=ElmSettings(cfg_scale=4.0, cfg_schedule="linear", temperature=1.0, top_k=1000),
            variants=("ar-l-2-10",),
            classes="sorted",
            seed="64 * processes + rank, and processes more with every batch",
            batch_size=4,
            printed="sample_fid.sh of Pepper-lll/LMforImageGeneration: settings without a gFID",
        )
    },
)
