"""FlexTok beside apple/ml-flextok."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from reference_impls.parity._taps import tapped
from reference_impls.tokenizers.flextok import FlexTok, release_arguments
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY"]


def build(config: Mapping[str, Any], _variant: str) -> FlexTok:
    """The module that the release's configuration describes."""
    return FlexTok(**release_arguments(config))


def outputs(module: FlexTok, case: ParityCase) -> dict[str, Tensor]:
    """The VAE's posterior, the code, single velocities, and samples with and without guidance."""
    noise = case.inputs["noise"]
    posterior = module.posterior(case.inputs["images"])
    latents = posterior.mean * module.scale
    quantized = module.quantize_latents(latents)
    batch, count = quantized.codes.shape
    keep = torch.tensor([1 + 5 * index % max(1, count - 1) for index in range(batch)])
    registers, shortened = module.registers(quantized.quantized), module.registers(quantized.quantized, keep)
    conditions = {"": registers, "_null": module.decoder.unconditional(registers), "_keep": shortened}
    found = {
        "vae_mean": posterior.mean,
        "vae_logvar": posterior.logvar,
        "vae_latents": latents,
        "encoded": module.encode_latents(latents),
        "tokens": quantized.codes,
        "quantized": quantized.quantized,
        "reconstruction_vae_only": module.decode_scaled(latents),
    }
    for name in case.wanted:
        if match := re.fullmatch(r"(velocity|time_embedding)_t([\d.]+)(_\w+)?", name):
            with tapped({"time": module.decoder.time}) as seen:
                velocity = module.velocity(noise, float(match[2]), conditions[match[3] or ""])
            found[name] = velocity if match[1] == "velocity" else seen["time"]
        elif match := re.fullmatch(r"(latents|reconstruction)_(truncated_)?(plain|cfg|apg)([\d.]*)", name):
            told = module.registers(module.quantize.lookup(quantized.codes), keep if match[2] else None)
            module.guidance, module.guidance_scale = ("cfg" if match[3] == "cfg" else "apg"), float(match[4] or 1)
            sampled = module.sample(told, noise)
            found[name] = sampled if match[1] == "latents" else module.decode_scaled(sampled)
    return found


PARITY = Parity(build=build, outputs=outputs)
