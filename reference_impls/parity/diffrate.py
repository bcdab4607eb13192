"""DiffRate beside OpenGVLab/DiffRate: given schedules on DeiT."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from reference_impls.layers.vit_driver import ReducedViT
from reference_impls.parity._reducers import outputs as traced
from reference_impls.parity._reducers import vit
from reference_impls.reducers.diffrate import METHOD, DiffRateSettings, searching
from tokenmark.contracts import Parity, ParityCase

__all__ = ["OPTIONAL", "PARITY", "built", "outputs"]

OPTIONAL = ("reduction.",)
"""What a search learns, which no checkpoint of the model itself holds."""


def build(config: Mapping[str, Any], _variant: str) -> nn.Module:
    """The reduced model that the release's configuration describes."""
    return built(config, vit({**config, "name": config.get("name", "").removeprefix("vit_")}))


def built(config: Mapping[str, Any], model: nn.Module) -> nn.Module:
    """`model` with the vector's schedule and with what a search learns; without them for a checkpoint's keys."""
    if "prune_kept_num" not in config:
        reduced: nn.Module = METHOD.build(model, DiffRateSettings())  # type: ignore[assignment]
        return reduced
    kept = tuple(config["prune_kept_num"]), tuple(config["merge_kept_num"])
    return searching(model, DiffRateSettings(prune_kept=kept[0], merge_kept=kept[1]))


def outputs(module: ReducedViT, case: ParityCase) -> dict[str, Tensor]:
    """The tokens' ways, the sizes after every block, and the cost as the release counts it."""
    sizes: dict[str, Tensor] = {}
    after = module.reduction.after_block

    def recorded(block: int, state: Any) -> Any:
        sizes[f"size{block}"] = torch.ones_like(state.x[..., 0]) if state.size is None else state.size
        return after(block, state)

    module.reduction.after_block = recorded  # type: ignore[method-assign]
    found = traced(module, case)
    del module.reduction.after_block
    # The release projects one patch more than there are: it counts tokens.
    macs = module.cost.macs(module.schedule) + module.cost.embed // module.backbone.patches
    return found | sizes | {"macs": torch.tensor(float(macs))}


PARITY = Parity(build=build, outputs=outputs, optional=OPTIONAL)
