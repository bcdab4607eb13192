"""TokenBridge's tokenizer and its generator's network beside YuqingWang1029/TokenBridge."""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from reference_impls.layers.gaussian_levels import GaussianLevels
from reference_impls.layers.grid_vq import as_grid, as_rows
from reference_impls.layers.tokenbridge_network import TokenBridgeNetwork
from reference_impls.tokenizers.tokenbridge import TokenBridge, release_arguments
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY"]

STRIDE = 16
"""Pixels of a side that become one latent."""
SPREAD_LATENTS, SPREAD_GRID = 4.0, 8.0
"""By what vectors multiply inputs, so that they spread over the levels."""
STEPS, MASKED = 4, 0.75
"""Steps of a recorded sample; share of the tokens that are masked where the network is run once."""


def build(config: Mapping[str, Any], _variant: str) -> nn.Module:
    """The generator's network where the configuration has one, else the tokenizer."""
    if "quant_levels" in config:
        sides = {name: tuple(config[name][key] for key in ("dim", "depth", "heads")) for name in SIDES}
        return TokenBridgeNetwork(
            grid=config["img_size"] // STRIDE // config["patch_size"],
            classes=config["class_num"],
            buffer_size=config["buffer_size"],
            levels=config["quant_levels"],
            **sides,
        )
    return TokenBridge(**release_arguments({**config, "bits": max(_widths(config))}))


SIDES = ("encoder", "decoder", "channel")


def _widths(config: Mapping[str, Any]) -> list[int]:
    """Bits of a code: one number in a release's configuration, several in a vector's."""
    bits = config["bits"]
    return [bits] if isinstance(bits, int) else list(bits)


def outputs(module: nn.Module, case: ParityCase) -> dict[str, Tensor]:
    """Those of the tokenizer or of the network."""
    return _network(module, case) if isinstance(module, TokenBridgeNetwork) else _tokenizer(module, case)


def _tokenizer(module: Any, case: ParityCase) -> dict[str, Tensor]:
    network, scale = module.vae.vae, module.vae.latent_scale
    posterior = network.posterior(case.inputs["images"])
    encoded = posterior.mean * scale * case.config.get("latent_gain", 1.0)
    found = {"vae_mean": posterior.mean, "vae_logvar": posterior.logvar, "encoded": encoded}
    for bits in _widths(case.config):
        levels = GaussianLevels(2**bits, case.config["range"])
        codes = levels.codes(encoded)
        values = levels.values(codes)
        found |= {f"tokens_{bits}bit": codes, f"quantized_{bits}bit": values}
        found[f"reconstruction_{bits}bit"] = network.decode(values / scale)
        if "grid" in case.inputs:
            codes = levels.codes(case.inputs["grid"] * SPREAD_GRID)
            found |= {f"grid_tokens_{bits}bit": codes, f"grid_values_{bits}bit": levels.values(codes)}
    return found


def _network(module: TokenBridgeNetwork, case: ParityCase) -> dict[str, Tensor]:
    labels, orders = case.inputs["labels"], case.inputs["orders"]
    codes = module.quantize.codes(as_rows(case.inputs["latents"] * SPREAD_LATENTS))
    values = module.quantize.values(codes)
    count = math.floor(MASKED * module.length)
    masked, visible = (places.sort(dim=1).values for places in orders.split([count, module.length - count], dim=1))
    encoded = module.encode_visible(values, visible, module.conditions(labels))
    features = module.decode_all(encoded, visible)
    rows = torch.arange(len(labels))[:, None]
    found = {
        "tokens": codes,
        "quantized": values,
        "encoder_output": encoded,
        "decoder_output": features,
        "logits": module.channels(features[rows, masked].flatten(0, 1), codes[rows, masked].flatten(0, 1)),
    }
    for name in case.wanted:
        if match := re.fullmatch(r"sample_cfg([\d.]+)", name):
            sampled = module.generate(labels, orders, steps=STEPS, cfg_scale=float(match[1]))
            found[name] = as_grid(module.quantize.values(sampled), math.isqrt(module.length))
    return found


PARITY = Parity(build=build, outputs=outputs)
