"""LaMamba-Diff: diffusion in SD-VAE's latents by a U-Net of selective scans and windowed attention."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from timm.layers.patch_embed import PatchEmbed
from torch import Tensor, nn

from reference_impls.layers.dit_blocks import LabelEmbedder, TimestepEmbedder, grid_sincos, modulation
from reference_impls.layers.lamamba_blocks import PatchExpanding, Stage, StageSize, modulated
from reference_impls.layers.latent_diffusion import DiffusionSettings, LatentDiffusion
from reference_impls.layers.swin import PatchMerging
from reference_impls.tokenizers.sd_vae import LATENT_SCALE
from tokenmark.contracts import GeneratorMethod, MethodError, Paper, Preset, Tokenizer, Variant

__all__ = ["METHOD", "LaMambaDiff", "build", "release_arguments"]

STAGES = 4
"""Of them the first two, on the way down, halve the map; on the way up the last two double it."""


class LaMambaDiff(LatentDiffusion):
    """LaMamba-Diff (arXiv 2408.02615, section 3.3): four stages down, one in the middle, four up.

    Every stage on the way up begins with what its counterpart on the way down gave, added.

    Args:
        input_size: Side of the latents.
        in_channels: Channels of the latents, C.
        num_classes: Classes, the dropped one left out.
        dims: Width of the first stage; the second has twice and the others four times as much.
        depths: Blocks of the stages on the way down; on the way up they have one more.
        bottleneck_depth: Blocks in the middle.
        num_heads: Attention heads of the stages on the way down, and up in reverse.
        window_size: Side of attention's windows.
        ssm_d_state: Numbers that a channel of a scan remembers.
        ssm_ratio: Channels of the scans over those of the blocks.
        latent_scale: What the tokenizer's latents are multiplied with for the network.
    """

    def __init__(
        self,
        *,
        input_size: int,
        in_channels: int,
        num_classes: int,
        dims: int,
        depths: Sequence[int],
        bottleneck_depth: int,
        num_heads: Sequence[int],
        window_size: int,
        ssm_d_state: int,
        ssm_ratio: float,
        latent_scale: float,
    ) -> None:
        super().__init__()
        self.side, self.channels, self.classes, self.latent_scale = input_size, in_channels, num_classes, latent_scale
        self.guided_channels = in_channels
        condition = 4 * dims

        def sized(stage: int) -> StageSize:
            halved = 2 ** min(stage, 2)
            sides = (input_size // halved, num_heads[stage], window_size)
            return StageSize(halved * dims, *sides, condition, ssm_d_state, ssm_ratio)

        sizes = [sized(stage) for stage in range(STAGES)]
        self.pos_embed = nn.Parameter(grid_sincos(dims, input_size).unflatten(0, (1, input_size, input_size)))
        self.t_embedder = TimestepEmbedder(condition, exact=True)
        self.y_embedder = LabelEmbedder(num_classes, condition)
        norm: Any = nn.LayerNorm
        self.patch_embed = PatchEmbed(input_size, 1, in_channels, dims, norm_layer=norm, output_fmt="NHWC")
        # Stages are unlike each other, and stand in what `compile_blocks` passes by: it compiles their blocks.
        self.layers = nn.Sequential(
            *(
                Stage(size, depth, downsample=PatchMerging(size.width) if index < 2 else None)
                for index, (size, depth) in enumerate(zip(sizes, depths, strict=True))
            )
        )
        self.mid_layer = Stage(sizes[-1], bottleneck_depth)
        self.layers_up = nn.Sequential(
            *(
                Stage(
                    sizes[index],
                    depths[index] + 1,
                    upsample=PatchExpanding(sizes[index + 1].width) if index < 2 else None,
                    projected=True,
                )
                for index in reversed(range(STAGES))
            )
        )
        self.final_up = PatchExpanding(dims, 1)
        self.final_condition_projection = nn.Linear(condition, dims)
        self.norm_final = nn.LayerNorm(dims, eps=1e-6, elementwise_affine=False)
        self.final_adaLN_modulation = modulation(dims, 2)
        self.final_linear = nn.Linear(dims, 2 * in_channels)

    def forward(self, x: Tensor, times: Tensor, labels: Tensor) -> Tensor:
        """Noisy latents `(B, C, S, S)`, training steps `(B,)` and labels to noise, then variance, `(B, 2C, S, S)`."""
        condition = self.t_embedder(times) + self.y_embedder(labels)
        x = self.patch_embed(x.to(self.pos_embed.dtype)) + self.pos_embed
        aside: list[Tensor] = []
        for stage in cast("Iterable[Stage]", self.layers):
            x = stage(x, condition)
            aside.append(x)
            x = stage.shrunk(x)
        x = x + self.mid_layer(x, condition)
        for upper in self.layers_up:
            x = upper(x, condition, aside.pop())
        shift, scale = self.final_adaLN_modulation(self.final_condition_projection(condition)).chunk(2, dim=1)
        x = modulated(self.norm_final(self.final_up(x)), shift[:, None, None], scale[:, None, None])
        out: Tensor = self.final_linear(x).permute(0, 3, 1, 2)
        return out


def build(
    tokenizer: Tokenizer | None,
    *,
    input_size: int,
    in_channels: int = 4,
    num_classes: int = 1000,
    dims: int,
    depths: Sequence[int] = (2, 2, 2, 2),
    bottleneck_depth: int = 2,
    num_heads: Sequence[int] = (16, 16, 16, 16),
    window_size: int = 8,
    ssm_d_state: int = 1,
    ssm_ratio: float = 2.0,
    latent_scale: float = LATENT_SCALE,
) -> LaMambaDiff:
    """A generator that writes for `tokenizer`; sizes are named as in the release, `input_size` as in DiT's.

    Raises MethodError if the tokenizer does not read the latents that these sizes write, or if windows do not tile
    the maps, heads do not divide the widths, or there are not four stages.
    """
    if len(depths) != STAGES or len(num_heads) != STAGES:
        raise MethodError(f"depths and num_heads must have {STAGES} numbers each, got {depths} and {num_heads}")
    for halved in (1, 2, 4):
        side, rest = divmod(input_size, halved)
        if rest or (side > window_size and side % window_size):
            raise MethodError(
                f"windows of {window_size} must tile maps of {input_size} / {halved} a side, or cover them"
            )
    if dims % 4 or any(dims * 2 ** min(stage, 2) % heads for stage, heads in enumerate(num_heads)):
        raise MethodError(f"dims must be a multiple of 4, and a stage's width of its num_heads, got {dims}")
    generator = LaMambaDiff(
        input_size=input_size,
        in_channels=in_channels,
        num_classes=num_classes,
        dims=dims,
        depths=depths,
        bottleneck_depth=bottleneck_depth,
        num_heads=num_heads,
        window_size=window_size,
        ssm_d_state=ssm_d_state,
        ssm_ratio=ssm_ratio,
        latent_scale=latent_scale,
    )
    generator.attach(tokenizer)
    return generator


FIXED: Mapping[str, Any] = {
    "patch_size": 1,
    "unconditional": False,
    "sd_unet_decoder_design": True,
    "skip_concat": False,
    "qkv_bias": True,
    "continuous_scan": True,
    "ssm_dt_rank": "auto",
    "ssm_conv": 3,
    "ssm_conv_bias": False,
    "forward_type": "v2",
    "mlp_ratio": 4.0,
    "norm_layer": "ln",
    "downsample_version": "v1",
    "gmlp": False,
}
"""Options of the release that its configurations leave at one value, the only one that is built here."""


def release_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `build`, without its tokenizer, for those of the release's class.

    Raises MethodError for options that the paper's models do not use.
    """
    for name, value in FIXED.items():
        if config.get(name, value) != value:
            raise MethodError(f"{name} must be {value}, as in the paper's models, got {config[name]}")
    names = ("num_classes", "dims", "depths", "bottleneck_depth", "num_heads", "window_size", "ssm_d_state")
    arguments = {name: config[name] for name in (*names, "ssm_ratio")}
    return {"input_size": config["in_resolution"], "in_channels": config["in_chans"], **arguments}


XL: Mapping[str, Any] = {"dims": 320}
"""The largest size (configs/LaMamba-DIff-XL.yaml); the release tells no other."""
NOTE = "no weights are published; 16 heads, as the release's scripts give them"

METHOD = GeneratorMethod(
    id="lamamba-diff",
    title="LaMamba-Diff",
    idea="A U-Net of linear cost: selective scans along snaking paths for what is far, windows for what is near",
    paper=Paper(
        title="LaMamba-Diff: Linear-Time High-Fidelity Diffusion Models Based on Local Attention and Mamba",
        authors="Yunxiang Fu, Chaoqi Chen, Yizhou Yu",
        year=2024,
        url="https://arxiv.org/abs/2408.02615",
    ),
    settings=DiffusionSettings,
    build=build,
    variants={
        "xl-256": Variant(config={**XL, "input_size": 32}, tokenizer="sd-vae/ft-mse", note=NOTE),
        "xl-512": Variant(config={**XL, "input_size": 64}, tokenizer="sd-vae/ft-mse-512", note=NOTE),
    },
    presets={
        # The defaults of the release's sample.py, which draws four pictures. The guidance of the paper's gFID, 2.04
        # at 256 pixels and 3.01 at 512, is in no file of it.
        "lamamba-diff-xl-sample": Preset(settings=DiffusionSettings(steps=250, cfg_scale=1.5), variants=("xl-256",)),
        "lamamba-diff-xl-512-sample": Preset(
            settings=DiffusionSettings(steps=250, cfg_scale=4.0), variants=("xl-512",)
        ),
    },
)
