"""DiT: diffusion in SD-VAE's latents with a transformer whose norms the time and the class modulate."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from reference_impls.layers.diffusion_transformer import DiffusionTransformer
from reference_impls.layers.dit_blocks import DiTBlock
from reference_impls.layers.latent_diffusion import DiffusionSettings
from reference_impls.tokenizers.sd_vae import LATENT_SCALE
from tokenmark.contracts import GeneratorMethod, Layout, Paper, Preset, Tokenizer, Variant

__all__ = ["METHOD", "XL_2", "DiT", "build", "release_arguments"]


class DiT(DiffusionTransformer):
    """DiT (arXiv 2212.09748, section 3.2) with adaLN-Zero blocks.

    Args:
        depth: Blocks.
        num_heads: Attention heads.
        mlp_ratio: Hidden channels of the MLPs over the width.
        hidden_size: Width.
        frame: As `DiffusionTransformer` takes it.
    """

    def __init__(self, *, depth: int, num_heads: int, hidden_size: int, mlp_ratio: float = 4.0, **frame: Any) -> None:
        super().__init__(hidden_size=hidden_size, **frame)
        self.blocks = nn.ModuleList(DiTBlock(hidden_size, num_heads, mlp_ratio) for _ in range(depth))
        self.finish(hidden_size)

    def mixed(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """Tokens `(B, L, D)` and conditions `(B, D)` to tokens."""
        for block in self.blocks:
            tokens = block(tokens, condition)
        return tokens


def build(tokenizer: Tokenizer | None, *, latent_scale: float = LATENT_SCALE, **sizes: Any) -> DiT:
    """A generator that writes for `tokenizer`; `sizes` are `DiT`'s, named as in the release.

    Raises MethodError if the tokenizer does not read the latents that these sizes write.
    """
    generator = DiT(latent_scale=latent_scale, **sizes)
    generator.attach(tokenizer)
    return generator


def release_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `build`, without its tokenizer, for those of the release's class."""
    names = ("input_size", "patch_size", "in_channels", "hidden_size", "depth", "num_heads", "mlp_ratio", "num_classes")
    return {name: config[name] for name in names}


XL_2: Mapping[str, Any] = {"hidden_size": 1152, "depth": 28, "num_heads": 16}
"""The largest size, with patches of 2x2 latents; only it was released."""

MINI_CONFIG: Mapping[str, Any] = {
    "input_size": 8,
    "hidden_size": 64,
    "depth": 4,
    "num_heads": 4,
    "num_classes": 10,
    "latent_scale": 1.0,
}
"""A size that trains on a processor; MAR-VAE's small latents have a deviation of 0.98."""


def _preset(variant: str, cfg_scale: float, printed: str) -> Preset:
    """As the release's `sample_ddp.py` draws the images of a row; on how many GPUs it leaves open."""
    return Preset(
        settings=DiffusionSettings(steps=250, cfg_scale=cfg_scale),
        variants=(variant,),
        classes="random",
        seed="0 * processes + rank",
        batch_size=32,
        printed=f"arXiv 2212.09748, {printed}",
    )


METHOD = GeneratorMethod(
    id="dit",
    title="DiT",
    idea="Diffusion with a plain transformer in place of the U-Net: time and class scale, shift and gate its blocks",
    paper=Paper(
        title="Scalable Diffusion Models with Transformers",
        authors="William Peebles, Saining Xie",
        year=2023,
        url="https://arxiv.org/abs/2212.09748",
    ),
    settings=DiffusionSettings,
    build=build,
    layout=Layout(wrappers=("ema",)),
    variants={
        "xl-2-256": Variant(
            config={**XL_2, "input_size": 32},
            tokenizer="sd-vae/ft-ema",
            note="weights: DiT-XL-2-256x256.pt, see facebookresearch/DiT (CC-BY-NC-4.0)",
        ),
        "xl-2-512": Variant(
            config={**XL_2, "input_size": 64},
            tokenizer="sd-vae/ft-ema-512",
            note="weights: DiT-XL-2-512x512.pt, see facebookresearch/DiT (CC-BY-NC-4.0)",
        ),
        "mini": Variant(
            config=MINI_CONFIG,
            weights="dit-mini",
            tokenizer="mar-vae/mini",
            note="32x32 images of 10 classes, trained in this repository",
        ),
    },
    presets={
        "dit-xl-2-256-paper": _preset("xl-2-256", 1.5, "table 2: gFID 2.27"),
        "dit-xl-2-256-paper-cfg-1.25": _preset("xl-2-256", 1.25, "table 2: gFID 3.22"),
        "dit-xl-2-256-paper-unguided": _preset("xl-2-256", 1.0, "table 2: gFID 9.62"),
        "dit-xl-2-512-paper": _preset("xl-2-512", 1.5, "table 3: gFID 3.04"),
        "dit-xl-2-512-paper-cfg-1.25": _preset("xl-2-512", 1.25, "table 3: gFID 4.64"),
        "dit-xl-2-512-paper-unguided": _preset("xl-2-512", 1.0, "table 3: gFID 12.03"),
        "dit-mini": Preset(settings=DiffusionSettings(steps=25, cfg_scale=2.0), variants=("mini",)),
    },
)
