"""TokenBridge's tokenizer and its generator beside YuqingWang1029/TokenBridge."""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from reference_impls.generators import tokenbridge_ar
from reference_impls.generators.tokenbridge_ar import TokenBridgeAr, TokenBridgeSettings
from reference_impls.layers.class_generator import Watch
from reference_impls.layers.gaussian_levels import GaussianLevels
from reference_impls.layers.grid_vq import as_grid, as_rows
from reference_impls.parity._mar import as_uniform
from reference_impls.parity._recorded import Recorded
from reference_impls.tokenizers.tokenbridge import TokenBridge, release_arguments
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY"]

SPREAD_LATENTS, SPREAD_GRID = 4.0, 8.0
"""By what vectors multiply inputs, so that they spread over the levels."""
STEPS, MASKED = 4, 0.75
"""Steps of a recorded sample; share of the tokens that are masked where the network is run once."""


def build(config: Mapping[str, Any], _variant: str) -> nn.Module:
    """The generator where the configuration has one, else the tokenizer."""
    if "quant_levels" in config:
        return tokenbridge_ar.build(None, **tokenbridge_ar.release_arguments(config), saved_tables=True)
    return TokenBridge(**release_arguments({**config, "bits": max(_widths(config))}))


def _widths(config: Mapping[str, Any]) -> list[int]:
    """Bits of a code: one number in a release's configuration, several in a vector's."""
    bits = config["bits"]
    return [bits] if isinstance(bits, int) else list(bits)


def outputs(module: nn.Module, case: ParityCase) -> dict[str, Tensor]:
    """Those of the tokenizer or of the generator."""
    return _network(module, case) if isinstance(module, TokenBridgeAr) else _tokenizer(module, case)


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


def _network(module: TokenBridgeAr, case: ParityCase) -> dict[str, Tensor]:
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
            settings = TokenBridgeSettings(steps=STEPS, cfg_scale=float(match[1]), temperature=0.0)
            sampled = module.generate(labels, settings, Recorded({"order": as_uniform(orders)[None]}), Watch())
            found[name] = as_grid(module.quantize.values(sampled), math.isqrt(module.length))
    return found


PARITY = Parity(build=build, outputs=outputs)
