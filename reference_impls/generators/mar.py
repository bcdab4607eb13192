"""MAR: latents without codes, written in random order by a masked transformer with a diffusion head."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from reference_impls.layers.class_generator import ClassGenerator, Watch
from reference_impls.layers.denoising_mlp import DenoisingMLP
from reference_impls.layers.grid_vq import as_rows
from reference_impls.layers.mar_backbone import MarBackbone
from reference_impls.layers.mar_sampling import Entering, with_dropped, write_latents
from reference_impls.layers.mar_sampling import MarSettings as SamplerSettings
from reference_impls.layers.noise import Noise
from reference_impls.layers.token_checks import pack_latents
from reference_impls.tokenizers.mar_vae import LATENT_SCALE
from tokenmark.contracts import GeneratorMethod, Layout, MethodError, Paper, Preset, Tokenizer, Variant

__all__ = ["METHOD", "Mar", "SamplerSettings", "build", "patchify", "unpatchify"]


class Mar(MarBackbone, ClassGenerator):
    """Masked autoregression over continuous tokens (arXiv 2406.11838); keys are MAR's, but for the layout's renames.

    Args:
        grid: Tokens of a side.
        patch_size: Latents of a side that make one token.
        latent_channels: Channels of a latent.
        classes: Number of classes.
        diffloss_d: Residual blocks of the head.
        diffloss_w: Its width.
        latent_scale: What latents were multiplied with before they were learned.
        backbone: The other sizes of MarBackbone.
    """

    def __init__(
        self,
        *,
        grid: int,
        patch_size: int,
        latent_channels: int,
        classes: int,
        diffloss_d: int,
        diffloss_w: int,
        latent_scale: float,
        **backbone: int,
    ) -> None:
        channels = latent_channels * patch_size**2
        super().__init__(length=grid**2, channels=channels, classes=classes, **backbone)
        self.classes, self.grid, self.patch_size, self.latent_scale = classes, grid, patch_size, latent_scale
        self.head = DenoisingMLP(channels, backbone["decoder_dim"], diffloss_w, diffloss_d)

    def steps(self, settings: SamplerSettings) -> int:
        """Calls of the backbone; the head is called for `diffusion_steps` in each, on the tokens that it writes."""
        return len(settings.iterations(self.length))

    def draw(self, labels: Tensor, noise: Noise, settings: SamplerSettings, watch: Watch) -> Tensor:
        """Images `(B, 3, S, S)` in [0, 1] from given noise."""
        tokens = self.generate(labels, settings, noise, watch)
        latents = as_rows(unpatchify(tokens, self.patch_size, self.grid)) / self.latent_scale
        return self.tokenizer.decode(pack_latents(latents))

    def generate(self, labels: Tensor, settings: SamplerSettings, noise: Noise, watch: Watch) -> Tensor:
        """Tokens `(B, N, C)` for `labels` `(B,)`: patches of latents, times `latent_scale`."""
        return self.write(self.conditions(labels), settings, noise, watch)

    @torch.no_grad()
    def write(
        self,
        conditions: Tensor,
        settings: SamplerSettings,
        noise: Noise,
        watch: Watch,
        entering: Entering | None = None,
    ) -> Tensor:
        """Tokens `(B, N, C)` for what the buffer begins with, `(B, W)`."""
        both = with_dropped(conditions, self.fake_latent, guided=settings.guided)

        def look(tokens: Tensor, visible: Tensor) -> Tensor:
            return self.features(tokens, visible, both)

        return write_latents(self.head, look, self.length, settings, noise, watch, entering)


def patchify(latents: Tensor, patch_size: int) -> Tensor:
    """Latents `(B, C, H, W)` to tokens `(B, N, C * p * p)`, each a patch in the order (channel, row, column)."""
    batch, channels, height, width = latents.shape
    grid = latents.reshape(batch, channels, height // patch_size, patch_size, width // patch_size, patch_size)
    return grid.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def unpatchify(tokens: Tensor, patch_size: int, grid: int) -> Tensor:
    """Back: tokens `(B, grid * grid, C * p * p)` to latents `(B, C, H, W)`."""
    channels = tokens.shape[2] // patch_size**2
    patches = tokens.reshape(len(tokens), grid, grid, channels, patch_size, patch_size)
    return patches.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


def build(
    tokenizer: Tokenizer | None,
    *,
    encoder_embed_dim: int,
    encoder_depth: int,
    encoder_num_heads: int,
    decoder_embed_dim: int,
    decoder_depth: int,
    decoder_num_heads: int,
    diffloss_d: int,
    diffloss_w: int,
    img_size: int = 256,
    vae_stride: int = 16,
    patch_size: int = 1,
    vae_embed_dim: int = 16,
    class_num: int = 1000,
    buffer_size: int = 64,
    latent_scale: float = LATENT_SCALE,
) -> Mar:
    """A generator that writes for `tokenizer`; sizes are named as in the release, whose MLPs are 4 times as wide.

    Raises MethodError if the tokenizer does not read the latents that these sizes write.
    """
    side = img_size // vae_stride
    if side % patch_size:
        raise MethodError(f"patch_size must divide the {side} latents of a side, got {patch_size}")
    generator = Mar(
        grid=side // patch_size,
        patch_size=patch_size,
        latent_channels=vae_embed_dim,
        classes=class_num,
        diffloss_d=diffloss_d,
        diffloss_w=diffloss_w,
        latent_scale=latent_scale,
        buffer_size=buffer_size,
        encoder_dim=encoder_embed_dim,
        encoder_depth=encoder_depth,
        encoder_heads=encoder_num_heads,
        decoder_dim=decoder_embed_dim,
        decoder_depth=decoder_depth,
        decoder_heads=decoder_num_heads,
    )
    generator.attach_latents(tokenizer, side**2, vae_embed_dim)
    return generator


def backbone_sizes(width: int, depth: int, heads: int) -> dict[str, int]:
    """Sizes of an encoder and a decoder that are alike, as arguments of `build`."""
    sizes = {"embed_dim": width, "depth": depth, "num_heads": heads}
    return {f"{side}_{name}": size for side in ("encoder", "decoder") for name, size in sizes.items()}


SIZES: Mapping[str, Mapping[str, Any]] = {
    "b": {**backbone_sizes(768, 12, 12), "diffloss_d": 6, "diffloss_w": 1024},
    "l": {**backbone_sizes(1024, 16, 16), "diffloss_d": 8, "diffloss_w": 1280},
    "h": {**backbone_sizes(1280, 20, 16), "diffloss_d": 12, "diffloss_w": 1536},
}
"""Of the paper's table 4; HiMAR's backbone and small head have them too."""


def _preset(size: str, cfg_scale: float, printed: str) -> Preset:
    """As the release's evaluation commands draw the images of a row; without guidance it is colder."""
    return Preset(
        settings=SamplerSettings(
            steps=256,
            cfg_scale=cfg_scale,
            cfg_schedule="linear",
            temperature=0.95 if cfg_scale == 1.0 else 1.0,
            diffusion_steps=100,
        ),
        variants=(size,),
        classes="sorted",
        seed="1 + rank",
        world_size=8,
        batch_size=128 if size == "h" else 256,
        printed=printed,
    )


METHOD = GeneratorMethod(
    id="mar",
    title="MAR",
    idea="Continuous tokens in random order: a masked transformer says what may come, a small diffusion head draws it",
    paper=Paper(
        title="Autoregressive Image Generation without Vector Quantization",
        authors="Tianhong Li, Yonglong Tian, He Li, Mingyang Deng, Kaiming He",
        year=2024,
        url="https://arxiv.org/abs/2406.11838",
    ),
    settings=SamplerSettings,
    build=build,
    layout=Layout(
        wrappers=("model_ema",),  # beside it lies "model", which is not what was evaluated
        renames=((r"^diffloss\.net\.", "head."), (r"^diffusion_pos_embed_learned$", "output_pos_embed")),
    ),
    variants={
        name: Variant(
            config=size,
            tokenizer="mar-vae/kl16",
            note="weights: checkpoint-last.pth, see LTH14/mar (MIT); its averaged weights, model_ema, are read",
        )
        for name, size in SIZES.items()
    },
    presets={
        "mar-b-paper": _preset("b", 2.9, "README.md: gFID 2.31"),
        "mar-b-paper-unguided": _preset("b", 1.0, "arXiv 2406.11838, table 4: gFID 3.48"),
        "mar-l-paper": _preset("l", 3.0, "README.md: gFID 1.78"),
        "mar-l-paper-unguided": _preset("l", 1.0, "arXiv 2406.11838, table 4: gFID 2.60"),
        "mar-h-paper": _preset("h", 3.2, "README.md: gFID 1.55"),
        "mar-h-paper-unguided": _preset("h", 1.0, "arXiv 2406.11838, table 4: gFID 2.35"),
    },
)
