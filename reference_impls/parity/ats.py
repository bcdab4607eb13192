"""ATS beside adaptivetokensampling/ATS."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from reference_impls.layers.vit_driver import ReducedViT
from reference_impls.parity._reducers import outputs as traced
from reference_impls.parity._reducers import reduced, step_map
from reference_impls.reducers.ats import METHOD, AtsSettings
from tokenmark.contracts import Parity, ParityCase


def build(config: Mapping[str, Any], _variant: str) -> nn.Module:
    """The reduced model that the release's configuration describes."""
    blocks = tuple(config["ats_blocks"])
    module = reduced(METHOD, config, AtsSettings(blocks=blocks, trim=config["drop_tokens"]))
    for block in blocks:  # constants in the state of the release's model, but in no checkpoint, so in no manifest
        zeros = torch.zeros(1, config["embed_dim"])
        attention = module.model.get_submodule(f"blocks.{block}.attn")
        attention.register_buffer("out_zero_mask", zeros, persistent=not zeros.is_meta)
    return module


def outputs(module: ReducedViT, case: ParityCase) -> dict[str, Tensor]:
    """The tokens' ways, which of them are alive, and which patches every block samples, in its order."""
    found, image = traced(module, case), case.inputs["image"]
    found["kept_per_block"] = module.counts(image)[:, :, 1].T
    for stage, block in enumerate(case.config["ats_blocks"]):
        alive, tokens = found["kept_per_block"][block], found["tokens_per_block"]
        found[f"policy{block}"] = (torch.arange(int(tokens[block])) < alive[:, None]).int()
        entering = int(tokens[block - 1]) if block else module.backbone.tokens
        places = step_map(found, block, entering)[:, 1:]
        order = torch.where(places < 0, entering, places).argsort(dim=1, stable=True)
        found[f"sampled_stage{stage}"] = order.masked_fill(places.gather(1, order) < 0, -1)
    return found


PARITY = Parity(build=build, outputs=outputs)
