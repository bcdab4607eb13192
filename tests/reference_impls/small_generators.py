"""Small sizes of every generator, with a tokenizer that fits each, for the tests that hold for all of them.

Keys are ids of methods; a second network of a method stands under `id/which`. Weights are drawn, so that only what
does not depend on training is tested with them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tokenmark import registry
from tokenmark.contracts import Generator, GeneratorMethod, Prompts, Tokenizer, TokenizerMethod


@dataclass(frozen=True, slots=True)
class Small:
    """A generator of some ten thousand parameters that draws a tiny image in a few milliseconds."""

    config: Mapping[str, Any]
    """Arguments of `METHOD.build`, the tokenizer left out."""
    tokenizer: tuple[str, Mapping[str, Any]]
    """A tokenizer's id, and the arguments of its `METHOD.build`."""
    settings: Mapping[str, Any]
    """What `METHOD.settings` is made of: guided, and few steps."""
    counted: str = ""
    """A module that is called once whenever the network is; the last block where it is not told."""
    bad: tuple[Mapping[str, Any], ...] = ()
    """Settings that must be refused, besides those that no method may take (see the test)."""
    prompts: tuple[int, int, int] | None = None
    """Of generators that are told in words what to draw: tokens of a text, their channels, and those of the whole."""


GRID: Mapping[str, Any] = {"ch": 32, "ch_mult": [1, 1, 1], "num_res_blocks": 1}
"""An autoencoder of 4x4 cells for images of 16 pixels."""
SD_VAE = ("sd-vae", {"image_size": 16, **GRID})
_MAR_GRID = {**GRID, "z_channels": 4, "encoder_attention": [2]}
MAR_VAE = ("mar-vae", {"image_size": 16, **_MAR_GRID})
TITOK: tuple[str, Mapping[str, Any]] = (
    "titok",
    {
        "image_size": 16,
        "encoder": {"width": 16, "layers": 1, "heads": 2, "patch_size": 4},
        "decoder": {"width": 16, "layers": 1, "heads": 2, "patch_size": 4},
        "num_latent_tokens": 8,
        "token_size": 4,
        "codebook_size": 32,
        "use_l2_norm": True,
        "pixel": {
            "hidden_channels": 32,
            "channel_mult": [1, 1, 1],
            "num_res_blocks": 1,
            "z_channels": 8,
            "codebook_size": 16,
        },
    },
)


def maskgit_vq(codes: int) -> tuple[str, Mapping[str, Any]]:
    """16 tokens for images of 16 pixels."""
    sizes = {"image_size": 16, "hidden_channels": 32, "channel_mult": [1, 1, 1], "num_res_blocks": 1}
    return "maskgit-vq", {**sizes, "z_channels": 32, "codebook_size": codes}


def llamagen_vq(codes: int) -> tuple[str, Mapping[str, Any]]:
    """16 tokens for images of 8 pixels."""
    sizes = {"image_size": 8, "ch": 32, "ch_mult": [1, 1], "num_res_blocks": 1}
    return "llamagen-vq", {**sizes, "z_channels": 8, "codebook_size": codes}


def both_sides(depth: int = 1, heads: str = "num_heads", dim: str = "embed_dim", width: int = 32) -> dict[str, int]:
    """Sizes of an encoder and a decoder that are alike."""
    sizes = {dim: width, "depth": depth, heads: 2}
    return {f"{side}_{name}": size for side in ("encoder", "decoder") for name, size in sizes.items()}


_BERT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
_TITOK_MASKGIT: Mapping[str, Any] = {**_BERT, "codebook_size": 32, "image_seq_len": 8, "condition_num_classes": 5}
_DIT = {"input_size": 4, "hidden_size": 32, "depth": 2, "num_heads": 2, "num_classes": 5}
_LLAMA = {"dim": 32, "n_layer": 2, "n_head": 2, "block_size": 16, "num_classes": 5, "multiple_of": 32}
_MAR = {"img_size": 16, "vae_stride": 4, "vae_embed_dim": 4, "class_num": 5, "buffer_size": 2, **both_sides(2)}
_MASKGEN: Mapping[str, Any] = {
    "decoder_embed_dim": 16,
    "decoder_depth": 2,
    "decoder_num_heads": 2,
    "micro_condition_embed_dim": 4,
    "text_tokens": 5,
    "text_embed_dim": 8,
}

SMALL: dict[str, Small] = {
    "dimr": Small(
        config={
            "channels": 4,
            "num_classes": 6,
            "stage_configs": (
                {
                    "block_type": "TransformerBlock",
                    "dim": 24,
                    "hidden_dim": 48,
                    "num_attention_heads": 2,
                    "num_blocks": 3,
                    "max_height": 2,
                    "max_width": 2,
                    "input_feature_ratio": 2,
                    "final_kernel_size": 3,
                },
                {
                    "block_type": "ConvNeXtBlock",
                    "dim": 16,
                    "hidden_dim": 24,
                    "kernel_size": 3,
                    "num_blocks": 2,
                    "max_height": 4,
                    "max_width": 4,
                    "input_feature_ratio": 1,
                    "final_kernel_size": 3,
                },
            ),
        },
        tokenizer=SD_VAE,
        settings={"steps": 4, "cfg_scale": 2.0, "cfg_scale_pow": 2.0},
        bad=({"steps": 1001}, {"cfg_scale": 0.5, "cfg_scale_pow": 2.0}, {"cfg_scale_pow": -2.0}),
    ),
    "dit": Small(
        config=_DIT,
        tokenizer=SD_VAE,
        settings={"steps": 4, "cfg_scale": 2.0},
        bad=({"steps": 1001}, {"steps": 300, "sampler": "ddim"}, {"cfg_scale": 0.5}, {"eta": 0.5}),
    ),
    "elm": Small(
        config={**_LLAMA, "kind": "ar", "token_each": 1, "code_dim": 6},
        tokenizer=("magvit-v2", {"image_size": 16, **GRID, "bits": 6}),
        settings={"cfg_scale": 3.0, "top_k": 9},
        bad=({"cfg_scale": -1.0}, {"temperature": -0.1}, {"top_k": -1}, {"steps": -1}),
    ),
    "elm/parts": Small(
        config={**_LLAMA, "kind": "ar", "token_each": 4, "code_dim": 3},
        tokenizer=("tokenbridge", {"image_size": 16, "vae": _MAR_GRID, "bits": 3}),
        settings={"cfg_scale": 3.0, "top_k": 5},
    ),
    "elm/masked": Small(
        config={**_LLAMA, "kind": "mlm", "token_each": 1, "code_dim": 5},
        tokenizer=("magvit-v2", {"image_size": 16, **GRID, "bits": 5}),
        settings={"cfg_scale": 3.0, "steps": 5},
    ),
    "enat": Small(
        config={
            "input_size": 4,
            "hidden_size": 24,
            "num_heads": 2,
            "enc_dec": (2, 1),
            "codebook_size": 32,
            "num_classes": 5,
        },
        tokenizer=maskgit_vq(32),
        settings={"steps": 5, "cfg_scale": 3.0, "mask_temp": 1.5, "samp_temp": 2.0},
        bad=({"mask_temp": -0.1}, {"samp_temp": -0.1}, {"cfg_scale": -1.0}),
    ),
    "flowtok-reading": Small(
        config={
            "width": 16,
            "depth": 2,
            "heads": 2,
            "length": 16,
            "channels": 4,
            "text_channels": 8,
            "pooled_channels": 8,
            "text_depth": 2,
            "text_heads": 2,
            "text_hidden": 16,
        },
        tokenizer=MAR_VAE,
        settings={"steps": 3, "cfg_scale": 2.0},
        bad=({"cfg_scale": -1.0},),
        prompts=(16, 8, 8),
    ),
    "flowar": Small(
        config={
            "scales": (1, 2, 4),
            "channels": 4,
            "classes": 5,
            "width": 16,
            "encoder_depth": 1,
            "decoder_depth": 2,
            "heads": 2,
            "flow_width": 64,
            "flow_depth": 2,
            "flow_kind": "cross",
        },
        tokenizer=MAR_VAE,
        settings={"steps": 4, "cfg_scale": 2.0, "guidance_limit": 0.5},
        counted="decoder_blocks.1",  # the flow network has blocks of its own, and is called more often
        bad=({"steps": 1}, {"cfg_scale": 0.5}, {"guidance_limit": 1.1}),
    ),
    "halton-maskgit": Small(
        config={
            "input_size": 4,
            "hidden_dim": 24,
            "codebook_size": 30,
            "depth": 2,
            "heads": 2,
            "mlp_dim": 96,
            "nclass": 5,
            "register": 1,
        },
        tokenizer=llamagen_vq(30),
        settings={"steps": 5, "w": 2.0, "temp_warmup": 1},
        bad=({"top_k": -1}, {"temp_warmup": -1}, {"r_temp": -1.0}, {"sm_temp_max": 0.0}, {"sm_temp_min": -1.0}),
    ),
    "himar": Small(
        config={**_MAR, "cond_scale": 2, "diffloss_d": 1, "diffloss_w": 16, "gdm_w": 16, "gdm_d": 2, "head": 2},
        tokenizer=MAR_VAE,
        settings={"steps": 2, "diffusion_steps": 2, "grid_steps": 3},
        counted="decoder_blocks.1",
        bad=({"grid_steps": 1001}, {"small_cfg_scale": -1.0}, {"temperature": -1.0}),
    ),
    "lamamba-diff": Small(
        config={
            "input_size": 4,
            "num_classes": 5,
            "dims": 8,
            "depths": (2, 1, 1, 1),
            "bottleneck_depth": 1,
            "num_heads": (2, 2, 2, 2),
            "window_size": 2,
        },
        tokenizer=SD_VAE,
        settings={"steps": 2, "cfg_scale": 2.0},
    ),
    "llamagen-gpt": Small(
        config={**_LLAMA, "vocab_size": 24},
        tokenizer=llamagen_vq(24),
        settings={"cfg_scale": 3.0, "top_k": 9, "top_p": 0.9},
        bad=({"temperature": 0.0}, {"top_p": 0.0}, {"top_p": 1.1}, {"cfg_interval": -2}, {"cfg_scale": -1.0}),
    ),
    "mar": Small(
        config={**_MAR, "patch_size": 1, "diffloss_d": 2, "diffloss_w": 32},
        tokenizer=MAR_VAE,
        settings={"steps": 4, "diffusion_steps": 3, "cfg_scale": 2.5},
        counted="decoder_blocks.1",
        bad=({"cfg_scale": -0.5}, {"temperature": -1.0}, {"diffusion_steps": 1001}),
    ),
    "maskbit-bert": Small(
        config={
            "token_size": 6,
            "codebook_splits": 2,
            "image_seq_len": 16,
            "nclass": 5,
            "hidden_dim": 16,
            "depth": 2,
            "heads": 2,
            "mlp_dim": 32,
        },
        tokenizer=(
            "maskbit",
            {
                "image_size": 16,
                "hidden_channels": 32,
                "channel_mult": [1, 1, 1],
                "num_res_blocks": 1,
                "token_size": 6,
            },
        ),
        settings={"steps": 4, "temperature": 2.0, "cfg_scale": 3.0},
        bad=({"temperature": -1.0}, {"cfg_scale": -1.0}, {"cfg_power": -1.0}, {"softmax_temperature": 0.0}),
    ),
    "maskgen": Small(
        config={**_MASKGEN, "num_latent_tokens": 8, "codebook_size": 32, "condition_num_classes": 3},
        tokenizer=TITOK,
        settings={"steps": 4, "temperature": 8.0, "cfg_scale": 3.0},
        bad=({"diffusion_steps": 1001}, {"aesthetic_score": -1.0}, {"temperature": -1.0}),
        prompts=(5, 8, 8),
    ),
    "maskgen/latents": Small(
        config={**_MASKGEN, "num_latent_tokens": 16, "token_size": 4, "diffloss_d": 1, "diffloss_w": 16},
        tokenizer=MAR_VAE,
        settings={"steps": 3, "cfg_scale": 3.0, "cfg_schedule": "linear", "temperature": 1.0, "diffusion_steps": 4},
        counted="blocks.1",
        prompts=(5, 8, 8),
    ),
    "rar": Small(
        config={**_BERT, "codebook_size": 32, "image_seq_len": 16, "condition_num_classes": 5},
        tokenizer=maskgit_vq(32),
        settings={"cfg_scale": 6.0, "cfg_power": 1.5, "temperature": 1.1},
        bad=({"cfg_scale": -1.0}, {"cfg_power": -0.1}, {"temperature": 0.0}),
    ),
    "resgen-reading": Small(
        config={
            "grid": 4,
            "channels": 4,
            "levels": 3,
            "codebook_size": 16,
            "classes": 5,
            "width": 16,
            "depth": 2,
            "heads": 2,
            "components": 5,
            "rank": 2,
        },
        tokenizer=MAR_VAE,
        settings={"steps": 5, "cfg_scale": 2.0},
        bad=({"cfg_scale": 0.5}, {"temperature": 0.0}, {"top_p": 0.0}, {"noise_scale": -1.0}),
    ),
    "sparsedit": Small(
        config={
            **_DIT,
            "depth": 7,
            "num_poolingformer": 2,
            "num_dumbbell": 1,
            "num_normal_block": 1,
            "semantic_size": 1,
            "dumbbell_group": (1, 1, 1, 1),
        },
        tokenizer=SD_VAE,
        settings={"steps": 3, "cfg_scale": 2.0},
    ),
    "tcts-reading": Small(
        config={
            "generator": {**_MASKGEN, "num_latent_tokens": 8, "codebook_size": 32, "condition_num_classes": 3},
            "selector_width": 16,
            "selector_depth": 2,
            "selector_heads": 2,
        },
        tokenizer=TITOK,
        settings={"steps": 4, "temperature": 2.0, "cfg_scale": 3.0, "fas": True},
        counted="generator.blocks.1",
        bad=({"fas": True, "rule": "purity"}, {"fas_share": 1.1}, {"fas_share": 0.0}, {"fas_interval": 0}),
        prompts=(5, 8, 8),
    ),
    "titok-maskgit": Small(
        config={**_TITOK_MASKGIT, "model_type": "ViT"},
        tokenizer=TITOK,
        settings={"steps": 4, "temperature": 2.0, "cfg_scale": 2.0},
        bad=({"temperature": -1.0},),
    ),
    "titok-maskgit/uvit": Small(
        config={**_TITOK_MASKGIT, "model_type": "UViT", "num_hidden_layers": 4},
        tokenizer=TITOK,
        settings={"steps": 4, "temperature": 2.0, "cfg_scale": 2.0, "cfg_schedule": "power-cosine"},
    ),
    "tokenbridge-ar": Small(
        config={
            **{name: size for name, size in _MAR.items() if name != "vae_embed_dim"},
            "channel_embed_dim": 24,
            "channel_depth": 2,
            "channel_heads": 2,
            "quant_levels": 8,
        },
        tokenizer=(
            "tokenbridge",
            {
                "image_size": 16,
                "vae": {**_MAR_GRID, "z_channels": 16},
                "bits": 3,
            },
        ),
        settings={"steps": 2, "cfg_scale": 3.0, "temperature": 0.9},
        counted="decoder_blocks.1",
        bad=({"cfg_scale": -1.0}, {"temperature": -0.1}),
    ),
    "var": Small(
        config={
            "num_classes": 5,
            "depth": 2,
            "embed_dim": 32,
            "num_heads": 2,
            "patch_nums": (1, 2, 4),
            "vocab_size": 24,
            "z_channels": 4,
        },
        tokenizer=(
            "var-vq",
            {
                "image_size": 8,
                "scales": [1, 2, 4],
                "ch": 32,
                "ch_mult": [1, 1],
                "num_res_blocks": 1,
                "z_channels": 4,
                "codebook_size": 24,
            },
        ),
        settings={"cfg": 1.5, "top_k": 12, "top_p": 0.9},
        bad=({"cfg": -0.1}, {"top_k": -1}, {"top_p": 1.1}),
    ),
    "xar": Small(
        config={"grid": 4, "channels": 4, "classes": 5, **both_sides(2, heads="heads", dim="dim")},
        tokenizer=MAR_VAE,
        settings={"num_steps": 2, "cfg": 2.0},
        bad=({"cfg": 0.9},),
    ),
}


def method_of(name: str) -> GeneratorMethod:
    """The method of an entry."""
    return registry.get_as(GeneratorMethod, name.partition("/")[0])


def tokenizer_of(name: str) -> Tokenizer:
    """The tokenizer of an entry, on the default device, its weights from one seed."""
    method, config = SMALL[name].tokenizer
    torch.manual_seed(1)
    built = registry.get_as(TokenizerMethod, method).build(**config)
    return built.eval() if isinstance(built, nn.Module) else built


def built(name: str, tokenizer: Tokenizer | None) -> Any:
    """The generator of an entry around `tokenizer`, its weights from one seed, in evaluation mode."""
    torch.manual_seed(0)
    generator = method_of(name).build(tokenizer, **SMALL[name].config)
    assert isinstance(generator, nn.Module)
    assert isinstance(generator, Generator)
    return with_lively_weights(generator.eval())


def with_lively_weights(module: nn.Module) -> nn.Module:
    """The module with weights that all matter: as they are made, gates and last layers are often zeros."""
    with torch.no_grad():
        for weight in module.parameters():
            if not weight.requires_grad or weight.is_meta:
                continue
            spread = weight[0].numel() ** -0.5 if weight.dim() > 1 else 0.1
            weight.copy_(spread * torch.randn_like(weight) + (weight if weight.dim() == 1 else 0.0))
    return module


def settings_of(name: str) -> Any:
    """The settings of an entry."""
    return method_of(name).settings(**SMALL[name].settings)


def prompts_of(name: str, texts: Sequence[int]) -> Prompts | None:
    """What an entry is told in words, where it is: a text for each number, the same for the same."""
    shape = SMALL[name].prompts
    if shape is None:
        return None
    count, channels, pooled = shape

    def drawn(text: int) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(text)
        shapes = ((1, count, channels), (1, count, channels), (1, pooled))
        return [torch.randn(part, generator=generator) for part in shapes]

    empty = drawn(1000)
    told = [torch.cat(parts) for parts in zip([part[:0] for part in empty], *map(drawn, texts), strict=True)]
    names = ("states", "inner", "pooled")
    parts = zip((*names, *(f"empty_{name}" for name in names)), (*told, *empty), strict=True)
    return Prompts(**dict(parts))
