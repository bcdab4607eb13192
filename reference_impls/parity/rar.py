"""RAR beside bytedance/1d-tokenizer."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from reference_impls.generators import rar
from reference_impls.generators.rar import METHOD, Rar, RarSettings
from reference_impls.layers.class_generator import Watch
from reference_impls.parity._recorded import Recorded
from reference_impls.parity._taps import tapped
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY"]

SETTINGS: Mapping[str, RarSettings] = {
    "b": METHOD.presets["rar-b-paper"].settings,
    "xxl": METHOD.presets["rar-xxl-paper"].settings,
    "no_guidance": RarSettings(cfg_scale=0.0, cfg_power=1.0, temperature=1.02),
}
"""By name of run, as the vector's notes give them; others have theirs in the configuration."""


def build(config: Mapping[str, Any], _variant: str) -> Rar:
    """The module that the release's configuration describes."""
    return rar.build(None, **rar.release_arguments(config))


def outputs(module: Rar, case: ParityCase) -> dict[str, Tensor]:
    """Logits in an order and in the raster, with what leads to the former, and the codes of every run."""
    labels = case.inputs["labels"]
    found: dict[str, Tensor] = {}
    if "tokens" in case.inputs:
        tokens, orders = case.inputs["tokens"], case.inputs.get("orders")
        stages = {f"after_block_{index}": block for index, block in enumerate(module.blocks)}
        with tapped({**stages, "before_head": module.adaln_before_head}) as seen:
            found["logits"] = module(tokens, labels, orders)
        found |= seen
        if orders is not None:
            found["shuffled_tokens"] = tokens.gather(1, orders)
        found["logits_raster_unconditional"] = module(tokens, torch.full_like(labels, module.classes))
        found["logits_of_prefix"] = module(tokens[:, :5], labels)
    for name, noise in case.inputs.items():
        if name.startswith("noise"):
            run = name.removeprefix("noise").removeprefix("_")
            codes = module.generate(labels, _settings(run, case.config), Recorded({"tokens": noise}), Watch())
            found[f"sampled_tokens_{run}".removesuffix("_")] = codes
    return found


def _settings(run: str, config: Mapping[str, Any]) -> RarSettings:
    """Those of the run's name, or of the release's configuration."""
    if run in SETTINGS and "sampling" not in config:
        return SETTINGS[run]
    sampling = config["sampling"]
    return RarSettings(
        cfg_scale=sampling["guidance_scale"],
        cfg_power=sampling["guidance_scale_pow"],
        temperature=sampling["randomize_temperature"],
    )


PARITY = Parity(build=build, outputs=outputs)
