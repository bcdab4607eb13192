"""Hi-MAR: MAR that writes a small image first, and then large tokens all at once by a diffusion transformer."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from reference_impls.generators import mar
from reference_impls.layers.class_generator import ClassGenerator, Watch
from reference_impls.layers.denoising_mlp import DenoisingMLP
from reference_impls.layers.grid_denoiser import GridDenoiser, denoise_grid
from reference_impls.layers.himar_backbone import HimarBackbone
from reference_impls.layers.mar_sampling import (
    CfgSchedule,
    MarSettings,
    check_settings,
    cosine_diffusion,
    drawn_orders,
    iterations,
    placed,
    visible_of,
    with_dropped,
    write_latents,
)
from reference_impls.layers.noise import Noise
from reference_impls.layers.token_checks import pack_latents
from reference_impls.tokenizers.mar_vae import LATENT_SCALE
from tokenmark.contracts import GeneratorMethod, Layout, MethodError, Paper, Preset, Release, Tokenizer, Variant

__all__ = ["METHOD", "Himar", "SamplerSettings", "build"]

Entering = Callable[[str, int], None]
"""Told the stage, small or large, and how many of its tokens are left when an iteration begins."""


@dataclass(frozen=True, slots=True)
class SamplerSettings:
    """What a sampling run may choose (`sample_tokens` of HiDream-ai/himar)."""

    steps: int = 4
    """Iterations over the large tokens."""
    cfg_scale: float = 2.5
    """Guidance of the large tokens; 1 is none."""
    small_cfg_scale: float = 2.7
    """Guidance of the small ones (`re_cfg` of the release); 1 is none."""
    cfg_schedule: CfgSchedule = "linear"
    temperature: float = 1.0
    """What the noise of every diffusion step is multiplied by."""
    diffusion_steps: int = 100
    """Steps of the head for small tokens, of the 1000 that it was trained in."""
    grid_steps: int = 250
    """Steps of the head for the large ones in every iteration, likewise."""

    def __post_init__(self) -> None:
        check_settings(
            steps=self.steps,
            temperature=self.temperature,
            cfg_schedule=self.cfg_schedule,
            scales=(self.cfg_scale, self.small_cfg_scale),
        )
        cosine_diffusion(self.diffusion_steps)
        cosine_diffusion(self.grid_steps)

    def of_small(self, steps: int) -> MarSettings:
        """Those of the small tokens, which are written as MAR's."""
        return MarSettings(
            steps=steps,
            cfg_scale=self.small_cfg_scale,
            cfg_schedule=self.cfg_schedule,
            temperature=self.temperature,
            diffusion_steps=self.diffusion_steps,
        )


class Himar(HimarBackbone, ClassGenerator):
    """Masked autoregression from small to large (arXiv 2505.20288); keys are the release's, but for the renames.

    Args:
        grid: Large tokens of a side.
        cond_scale: Small tokens of a side.
        channels: Channels of a latent.
        classes: Number of classes.
        mlp_head: Width and depth of the head for small tokens.
        grid_head: Width, depth and attention heads of the head for large ones.
        latent_scale: What latents were multiplied with before they were learned.
        backbone: The other sizes of HimarBackbone.
    """

    def __init__(
        self,
        *,
        grid: int,
        cond_scale: int,
        channels: int,
        classes: int,
        mlp_head: tuple[int, int],
        grid_head: tuple[int, int, int],
        latent_scale: float,
        **backbone: int,
    ) -> None:
        super().__init__(small=cond_scale**2, length=grid**2, channels=channels, classes=classes, **backbone)
        self.classes, self.latent_scale = classes, latent_scale
        self.small_steps = 4 * cond_scale
        feature, (width, depth, heads) = backbone["decoder_dim"], grid_head
        self.head = DenoisingMLP(channels, feature, *mlp_head)
        self.grid_head = GridDenoiser(
            grid=grid, channels=channels, feature=feature, width=width, depth=depth, heads=heads
        )

    def steps(self, settings: SamplerSettings) -> int:
        """Calls of the backbone in both stages; in each a head is called for all its diffusion steps."""
        small = settings.of_small(self.small_steps).iterations(self.small)
        return len(small) + len(iterations(self.length, settings.steps, settings.cfg_scale, settings.cfg_schedule))

    def draw(self, labels: Tensor, noise: Noise, settings: SamplerSettings, watch: Watch) -> Tensor:
        """Images `(B, 3, S, S)` in [0, 1] from given noise."""
        _, tokens = self.generate(labels, settings, noise, watch)
        return self.tokenizer.decode(pack_latents(tokens / self.latent_scale))

    @torch.no_grad()
    def generate(
        self,
        labels: Tensor,
        settings: SamplerSettings,
        noise: Noise,
        watch: Watch,
        entering: Entering | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Small tokens `(B, S, C)` and large ones `(B, N, C)` for `labels` `(B,)`, both times `latent_scale`."""
        conditions, seen = self.conditions(labels), entering or (lambda _stage, _left: None)
        small, states = self._write_small(conditions, settings, noise, watch, seen)
        return small, self._write_large(conditions, states, settings, noise, watch, seen)

    def conditions(self, labels: Tensor) -> Tensor:
        """Class embeddings `(B, W)` of `labels` `(B,)`."""
        out: Tensor = self.class_emb(labels)
        return out

    def _write_small(
        self, conditions: Tensor, settings: SamplerSettings, noise: Noise, watch: Watch, entering: Entering
    ) -> tuple[Tensor, Tensor]:
        """The small tokens `(B, S, C)` as MAR writes them, and of each the feature that it was drawn from."""
        chosen = settings.of_small(self.small_steps)
        both = with_dropped(conditions, self.fake_latent, guided=chosen.guided)
        states = conditions.new_zeros(len(conditions), self.small, self.decoder_norm.weight.shape[0])

        def look(tokens: Tensor, visible: Tensor) -> Tensor:
            return self.small_features(tokens, visible, both)

        def drawing(features: Tensor, places: Tensor) -> None:
            nonlocal states
            states = placed(states, places, features[: len(states)])

        def started(visible: Tensor, _scale: float) -> None:
            entering("small", self.small - visible.shape[1])

        tokens = write_latents(
            self.head, look, self.small, chosen, noise, watch, started, stage="small_", drawing=drawing
        )
        return tokens, states

    def _write_large(
        self,
        conditions: Tensor,
        states: Tensor,
        settings: SamplerSettings,
        noise: Noise,
        watch: Watch,
        entering: Entering,
    ) -> Tensor:
        """The large tokens `(B, N, C)`, for features `(B, S, D)` of the small ones.

        Every iteration draws all tokens that are not written yet, of which the next ones may see some.
        """
        guided = settings.cfg_scale != 1.0
        orders = drawn_orders(noise, "order", self.length)
        conditions, copies = with_dropped(conditions, self.fake_latent, guided=guided), 2 if guided else 1
        # Guidance is by the class alone: both halves see the small image that was drawn with it.
        small = self.from_states(states).repeat(copies, 1, 1)
        tokens = states.new_zeros(len(states), self.length, self.head.channels)
        for step, now in enumerate(iterations(self.length, settings.steps, settings.cfg_scale, settings.cfg_schedule)):
            entering("large", now.masked)
            visible, masked = visible_of(orders, now.masked), orders[:, : now.masked]
            features = self.large_features(small, tokens.repeat(copies, 1, 1), visible.repeat(copies, 1), conditions)
            new = denoise_grid(
                self.grid_head,
                features[:, self.small :],
                tokens,
                masked,
                noise.normal("start", step, *tokens.shape[1:]).to(tokens.dtype),
                noise.normal("steps", step, settings.grid_steps, *tokens.shape[1:]),
                settings.temperature,
                now.scale,
            )
            tokens = placed(tokens, masked, watch.see(new))
        return tokens


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
    gdm_w: int,
    gdm_d: int,
    head: int,
    img_size: int = 256,
    vae_stride: int = 16,
    vae_embed_dim: int = 16,
    class_num: int = 1000,
    buffer_size: int = 64,
    cond_scale: int = 8,
    latent_scale: float = LATENT_SCALE,
) -> Himar:
    """A generator that writes for `tokenizer`; sizes are named as in the release (`gdm` is the head for the grid).

    Raises MethodError if the tokenizer does not read the latents that these sizes write.
    """
    grid = img_size // vae_stride
    if not 1 <= cond_scale <= grid:
        raise MethodError(f"cond_scale must be 1 to {grid}, got {cond_scale}")
    generator = Himar(
        grid=grid,
        cond_scale=cond_scale,
        channels=vae_embed_dim,
        classes=class_num,
        mlp_head=(diffloss_w, diffloss_d),
        grid_head=(gdm_w, gdm_d, head),
        latent_scale=latent_scale,
        buffer_size=buffer_size,
        encoder_dim=encoder_embed_dim,
        encoder_depth=encoder_depth,
        encoder_heads=encoder_num_heads,
        decoder_dim=decoder_embed_dim,
        decoder_depth=decoder_depth,
        decoder_heads=decoder_num_heads,
    )
    generator.attach_latents(tokenizer, grid**2, vae_embed_dim)
    return generator


SIZES = {
    "b": {**mar.SIZES["b"], "gdm_w": 512, "gdm_d": 6, "head": 8},
    "l": {**mar.SIZES["l"], "gdm_w": 512, "gdm_d": 8, "head": 8},
    "h": {**mar.SIZES["h"], "gdm_w": 768, "gdm_d": 12, "head": 12},
}

METHOD = GeneratorMethod(
    id="himar",
    title="Hi-MAR",
    idea="MAR in two scales: a few tokens of a small image first, which then lead the large ones, drawn many at a time",
    paper=Paper(
        title="Hierarchical Masked Autoregressive Models with Low-Resolution Token Pivots",
        authors="Guangting Zheng, Yehao Li, Yingwei Pan, Jiajun Deng, Ting Yao, Yanyong Zhang, Tao Mei",
        year=2025,
        url="https://arxiv.org/abs/2505.20288",
    ),
    settings=SamplerSettings,
    build=build,
    layout=Layout(
        wrappers=("model_ema",),  # as MAR
        renames=((r"^diffloss\.net\.", "head."), (r"^cond_diffloss\.net\.", "grid_head.")),
    ),
    variants={
        name: Variant(
            config=size,
            tokenizer="mar-vae/kl16",
            release=Release("HiDream-ai/Hi-MAR", f"Hi-MAR-{name.upper()}/checkpoint-last.pth"),
            note="no licence is stated for its code",
        )
        for name, size in SIZES.items()
    },
    presets={
        f"himar-{size}-paper": Preset(
            settings=settings,
            variants=(size,),
            classes="sorted",
            seed="1 + rank",
            batch_size=256,
            printed=f"arXiv 2505.20288, table 2: gFID {gfid}",
        )
        for size, settings, gfid in (
            ("b", SamplerSettings(steps=4, cfg_scale=2.5, small_cfg_scale=2.7), "1.93"),
            ("l", SamplerSettings(steps=4, cfg_scale=3.5, small_cfg_scale=3.5), "1.66"),
            ("h", SamplerSettings(steps=12, cfg_scale=3.2, small_cfg_scale=5.5), "1.52"),
        )
    },
)
