"""Settings of a reducer on a model of any depth, where nobody gives them: for a first look at its speed.

A method of its own names is left with its own defaults; what is chosen here stands in the run's specification.
"""

import dataclasses
from typing import Any

import torch
from pydantic import JsonValue

from tokenmark import backbones, registry
from tokenmark.contracts import ReducerMethod


def usual(method: str, model: str) -> dict[str, JsonValue]:
    """Settings by the field's common names, from the model's depth L and its P patches; empty where it has neither.

    - `r`, tokens merged per block: P // L, with which no patch or hardly any is left at the end. At 224 pixels and
      16-pixel patches that is 16 for 12 blocks and 8 for 24, as in ToMe's tables (Bolya et al. 2023, table 1).
    - `blocks`, where stages reduce: at a quarter, a half and three quarters of the depth, as 3, 6, 9 are of 12.
    - `keep_rate`: the method's own default, said aloud.

    Raises:
        UnknownNameError: no such method or model.
    """
    known: dict[str, Any] = {
        field.name: field.default for field in dataclasses.fields(registry.get_as(ReducerMethod, method).settings)
    }
    with torch.device("meta"):  # the architecture alone
        built = backbones.get(model).build()
    depth = len(getattr(built, "blocks", ()))
    patches = getattr(getattr(built, "patch_embed", None), "num_patches", None)
    if not depth or not isinstance(patches, int):
        return {}
    stages = tuple(depth * quarter // 4 for quarter in (1, 2, 3))
    chosen: dict[str, JsonValue] = {}
    if "r" in known:
        chosen["r"] = patches // depth
    if isinstance(known.get("keep_rate"), float):
        chosen["keep_rate"] = known["keep_rate"]
    if "blocks" in known and known["blocks"] != stages:
        chosen["blocks"] = list(stages)
    return chosen
