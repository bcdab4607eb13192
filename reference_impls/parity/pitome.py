"""PiToMe beside hchautran/PiToMe: its patch of DeiT, and its functions alone."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from reference_impls.layers.reduction import Matching, TokenState, merge, select
from reference_impls.layers.vit_driver import ReducedViT
from reference_impls.parity._reducers import outputs as traced
from reference_impls.parity._reducers import reduced
from reference_impls.reducers.pitome import METHOD, PitomeSettings, energy_matching, text_matching
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY", "build", "outputs"]


def build(config: Mapping[str, Any], variant: str) -> nn.Module:
    """The reduced model that the release's configuration describes; a module without weights for functions alone."""
    if variant == "functions":
        return nn.Identity()
    return reduced(METHOD, config, PitomeSettings(ratio=config.get("ratio", 0.95)))


def outputs(module: ReducedViT, case: ParityCase) -> dict[str, Tensor]:
    """The tokens' ways and the blocks' cost as the release counts it, or what the functions give."""
    if case.variant == "functions":
        return _functions(case)
    cost = module.cost
    # The release counts the tokens that enter a block for its MLP too, and nothing outside of the blocks.
    macs = sum(
        (block.linear + block.mlp) * entering.attention + block.pairs * entering.attention**2
        for block, entering in zip(cost.blocks, module.schedule, strict=True)
    )
    return traced(module, case) | {"macs": torch.tensor(float(macs))}


def _functions(case: ParityCase) -> dict[str, Tensor]:
    metric, x = case.inputs["metric"], case.inputs["x"]
    settings = {name: [float(part.split()[1]) for part in case.config[name].split(", ")] for name in ("vision", "text")}
    found: dict[str, Tensor] = {}
    for prefix, end in enumerate(("", "_cls")):
        patches = x.shape[1] - prefix
        ratio, margin = settings["vision"]
        r = int(patches - patches * ratio)
        for name, protect in (("vision", True), ("vision_bsm", False)):
            matching = energy_matching(metric, r, prefix, margin, protect=protect)
            found |= _named(f"{name}{end}", x, matching)
            found[f"{name}{end}_pruned"] = select(TokenState(x), matching.kept).x
        ratio, margin = settings["text"]
        found |= _named(f"text{end}", x, text_matching(metric, int(patches - patches * ratio), prefix, margin))
    return found


def _named(name: str, x: Tensor, matching: Matching) -> dict[str, Tensor]:
    state = merge(TokenState(x, source=torch.arange(x.shape[1]).expand(len(x), -1)), matching)
    assert state.size is not None and state.source is not None  # noqa: S101, PT018  merge gives both
    return {f"{name}_merged": state.x, f"{name}_size": state.size, f"{name}_map": state.source}


PARITY = Parity(build=build, outputs=outputs)
