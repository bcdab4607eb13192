"""TokenBridge's generator: codes of KL-16's channels, token after token in random order, channel after channel."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reference_impls.layers.class_generator import Watch
from reference_impls.layers.code_generator import CodeGenerator
from reference_impls.layers.mar_sampling import (
    CfgSchedule,
    check_settings,
    drawn_orders,
    iterations,
    picked,
    with_dropped,
    write_tokens,
)
from reference_impls.layers.noise import Noise, exponential
from reference_impls.layers.tokenbridge_network import CHANNEL_ORDER, RENAMES, TokenBridgeNetwork
from tokenmark.contracts import GeneratorMethod, Layout, MethodError, Paper, Preset, Tokenizer, Variant

__all__ = ["METHOD", "TokenBridgeAr", "TokenBridgeSettings", "build", "release_arguments"]


@dataclass(frozen=True, slots=True)
class TokenBridgeSettings:
    """What a sampling run may choose (`sample_tokens`, models/tokenbridge.py of YuqingWang1029/TokenBridge)."""

    steps: int = 256
    """Passes of the backbone; with as many as tokens, each writes one."""
    cfg_scale: float = 3.1
    """Guidance of the backbone's features; 1 is none, and half the work."""
    cfg_schedule: CfgSchedule = "linear"
    temperature: float = 0.96
    """What logits are divided by; with 0 the likeliest codes are taken."""

    def __post_init__(self) -> None:
        check_settings(
            steps=self.steps, temperature=self.temperature, cfg_schedule=self.cfg_schedule, scales=(self.cfg_scale,)
        )


class TokenBridgeAr(TokenBridgeNetwork, CodeGenerator):
    """The sampler around the network, which it is: the release stores its keys without a prefix.

    Args:
        classes: Number of classes.
        network: As `TokenBridgeNetwork` takes it.
    """

    def __init__(self, *, classes: int, **network: Any) -> None:
        super().__init__(classes=classes, **network)
        self.classes = classes

    @property
    def written(self) -> tuple[int, tuple[int, ...]]:
        """Tokens of an image, and the levels, once for each channel."""
        return self.length, (self.levels,) * len(CHANNEL_ORDER)

    def steps(self, settings: TokenBridgeSettings) -> int:
        """Calls of the backbone; after each the small head is called once per channel, on the tokens it writes."""
        return len(iterations(self.length, settings.steps, settings.cfg_scale, settings.cfg_schedule))

    @torch.no_grad()
    def generate(self, labels: Tensor, settings: TokenBridgeSettings, noise: Noise, watch: Watch) -> Tensor:
        """Codes `(B, N, channels)` for `labels` `(B,)`.

        Noise is drawn per place and not per iteration: an order, and uniform `tokens` `(B, N, channels * K)`, channels
        in the order of writing.
        """
        size, guided = len(CHANNEL_ORDER) * self.levels, settings.cfg_scale != 1.0
        orders = drawn_orders(noise, "order", self.length)
        clocks = exponential(noise.uniform("tokens", 0, self.length, size)) if settings.temperature else None
        conditions = with_dropped(self.conditions(labels), self.fake_latent, guided=guided)

        def look(codes: Tensor, visible: Tensor) -> Tensor:
            return self.features(self.quantize.values(codes).to(self.fake_latent.dtype), visible, conditions)

        def draw(features: Tensor, places: Tensor, scale: float) -> Tensor:
            if guided:
                conditional, unconditional = features.chunk(2)
                features = unconditional + scale * (conditional - unconditional)
            new = self.channels.sample(
                features.flatten(0, 1),
                None if clocks is None else picked(clocks, places).reshape(-1, len(CHANNEL_ORDER), self.levels),
                temperature=settings.temperature,
                watch=watch,
            )
            codes: Tensor = new.unflatten(0, places.shape)
            return codes

        blank = torch.zeros(len(labels), self.length, len(CHANNEL_ORDER), dtype=torch.int64, device=labels.device)
        passes = iterations(self.length, settings.steps, settings.cfg_scale, settings.cfg_schedule)
        return write_tokens(blank, orders, passes, look, draw, guided=guided)


def build(
    tokenizer: Tokenizer | None,
    *,
    encoder_embed_dim: int,
    encoder_depth: int,
    encoder_num_heads: int,
    decoder_embed_dim: int,
    decoder_depth: int,
    decoder_num_heads: int,
    channel_embed_dim: int,
    channel_depth: int,
    channel_heads: int,
    img_size: int = 256,
    vae_stride: int = 16,
    class_num: int = 1000,
    buffer_size: int = 64,
    quant_levels: int = 64,
    saved_tables: bool = False,
) -> TokenBridgeAr:
    """A generator that writes for `tokenizer`; sizes are named as in the release, whose MLPs are 4 times as wide.

    With `saved_tables` the state dict has the tables that are computed, as the release's own has; its averaged weights
    have none.

    Raises MethodError if the tokenizer does not read the codes that these sizes write, or if heads do not divide a
    width.
    """
    encoder = (encoder_embed_dim, encoder_depth, encoder_num_heads)
    decoder = (decoder_embed_dim, decoder_depth, decoder_num_heads)
    channel = (channel_embed_dim, channel_depth, channel_heads)
    for width, _, heads in (encoder, decoder, channel):
        if width % heads:
            raise MethodError(f"embed_dim must be a multiple of its number of heads, {heads}, got {width}")
    grid = img_size // vae_stride
    generator = TokenBridgeAr(
        grid=grid,
        classes=class_num,
        buffer_size=buffer_size,
        encoder=encoder,
        decoder=decoder,
        channel=channel,
        levels=quant_levels,
        saved_tables=saved_tables,
    )
    generator.attach(tokenizer)
    return generator


def release_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `build`, without its tokenizer, for the sizes of the release.

    Raises MethodError for tokens of several latents, which no release has.
    """
    if config["patch_size"] != 1:
        raise MethodError(f"patch_size must be 1, got {config['patch_size']}")
    sizes = {name: config[name] for name in ("img_size", "class_num", "buffer_size", "quant_levels")}
    return {**sizes, **_sizes(*(tuple(config[side].values()) for side in ("encoder", "decoder", "channel")))}


def _sizes(*sides: tuple[int, ...]) -> dict[str, int]:
    """Width, depth and heads of the encoder, the decoder and the channels' transformer, as the release names them."""
    names = [f"{side}_{name}" for side in ("encoder", "decoder") for name in ("embed_dim", "depth", "num_heads")]
    names += ["channel_embed_dim", "channel_depth", "channel_heads"]
    return dict(zip(names, (size for side in sides for size in side), strict=True))


def _variant(name: str, side: tuple[int, int, int], channel: tuple[int, int, int]) -> Variant:
    return Variant(
        config=_sizes(side, side, channel),
        tokenizer="tokenbridge/kl16-6bit",
        note=f"weights: tokenbridge_{name}/checkpoint-last.pth, see YuqingWang1029/TokenBridge (MIT); its averaged "
        "weights, model_ema, are read",
    )


def _preset(size: str, cfg_scale: float, temperature: float, gfid: str) -> Preset:
    """As the release's evaluation commands draw the images of a row."""
    return Preset(
        settings=TokenBridgeSettings(steps=256, cfg_scale=cfg_scale, cfg_schedule="linear", temperature=temperature),
        variants=(size,),
        classes="sorted",
        seed="1 + rank",
        world_size=8,
        batch_size=256,
        printed=f"README.md: gFID {gfid}",
    )


METHOD = GeneratorMethod(
    id="tokenbridge-ar",
    title="TokenBridge",
    idea="A masked transformer says what a token may be, a small one writes its 16 channels' codes one by one",
    paper=Paper(
        title="Bridging Continuous and Discrete Tokens for Autoregressive Visual Generation",
        authors="Yuqing Wang, Zhijie Lin, Yao Teng, Yuanzhi Zhu, Shuhuai Ren, Jiashi Feng, Xihui Liu",
        year=2025,
        url="https://arxiv.org/abs/2503.16430",
    ),
    settings=TokenBridgeSettings,
    build=build,
    layout=Layout(
        wrappers=("model_ema",),  # beside it lies "model", which is not what was evaluated
        ignored=("channel_mask", "reconstruction_values", "boundaries"),
        renames=RENAMES,
    ),
    variants={
        "l": _variant("large", (1024, 16, 16), (1024, 4, 8)),
        "h": _variant("huge", (1280, 20, 16), (1024, 6, 8)),
    },
    presets={
        "tokenbridge-ar-l-paper": _preset("l", 3.1, 0.96, "1.76"),
        "tokenbridge-ar-h-paper": _preset("h", 3.45, 0.91, "1.55"),
    },
)
