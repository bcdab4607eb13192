"""Selftok beside selftok-team/SelftokTokenizer, from the VAE's latents to the VAE's latents."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from reference_impls.tokenizers.selftok import Selftok, release_arguments, thousandths
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY"]

GRID = range(0, 1000, 13)
"""Times, of 1000, at which `to_indices_grid` is recorded."""


def build(config: Mapping[str, Any], _variant: str) -> Selftok:
    """The module that the release's configuration describes, with a small VAE in the place of the one beside it."""
    arguments = release_arguments(config)
    small = {"ch": 32, "ch_mult": [1] * len(arguments["vae"]["ch_mult"]), "num_res_blocks": 1}
    return Selftok(**{**arguments, "vae": {**arguments["vae"], **small}})


def outputs(module: Selftok, case: ParityCase) -> dict[str, Tensor]:
    """Queries, codes, and what each kind of decoder makes of them."""
    latents, noise = case.inputs["latents"], case.inputs["noise"]
    queries = module.encoder(latents)
    projected = module.encoder.project(queries)
    codes = module.encoder.quantizer.codes(projected)
    quantized = module.encoder.lookup(codes)
    found = {"encoder_output": queries, "encoded": projected, "tokens": codes, "quantized": quantized}
    found["to_indices_grid"] = torch.tensor([module.last_token(time) for time in GRID])
    if module.renderer:
        return found | {"latents_rendered": module.model.render(quantized)}
    for name in case.wanted:
        if match := re.fullmatch(r"velocity_t([\d.]+)", name):
            found[name] = module.velocity(noise, float(match[1]), quantized)
        elif match := re.fullmatch(r"last_visible_token_t([\d.]+)", name):
            found[name] = torch.full((len(noise),), module.last_token(thousandths(float(match[1]))))
    steps = [module.last_token(thousandths(time)) for time in module.times()[:-1]]
    return found | {
        "last_visible_token_per_step": torch.tensor(steps),
        "latents_sampled": module.sample(quantized, noise),
    }


PARITY = Parity(build=build, outputs=outputs)
