"""EViT beside youweiliang/evit."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from reference_impls.layers.vit_driver import ReducedViT
from reference_impls.parity._reducers import outputs as traced
from reference_impls.parity._reducers import reduced, vit
from reference_impls.reducers.evit import METHOD, EvitSettings
from tokenmark.contracts import Parity, ParityCase


def settings_of(config: Mapping[str, Any]) -> EvitSettings:
    """The settings that a vector's configuration asks for, which has a rate, and perhaps a number, for every block."""
    depth = config["depth"]
    rates = config.get("keep_rate") or [0.7 if block in config["drop_loc"] else 1.0 for block in range(depth)]
    counts = config.get("tokens") or [None] * depth
    blocks = tuple(block for block in range(depth) if rates[block] < 1 or counts[block] is not None)
    return EvitSettings(
        keep_rate=tuple(rates[block] for block in blocks),
        blocks=blocks,
        counts=tuple(counts[block] for block in blocks),
        fuse=config.get("fuse_token", True),
    )


def build(config: Mapping[str, Any], _variant: str) -> ReducedViT:
    """The reduced model that the release's configuration describes."""
    return reduced(METHOD, config, settings_of(config))


def outputs(module: ReducedViT, case: ParityCase) -> dict[str, Tensor]:
    """The tokens' ways, of a model of the images' size; the patches that a stage keeps are told without the fused."""
    size = tuple(case.inputs["image"].shape[2:])
    found = traced(module if size == module.backbone.image_shape[1:] else _resized(module, case, size), case)
    kept = [name for name in found if name.startswith("kept_stage")]
    fused = int(case.config.get("fuse_token", True))
    return found | {name: found[name][:, : found[name].shape[1] - fused] for name in kept}


def _resized(module: ReducedViT, case: ParityCase, size: tuple[int, ...]) -> ReducedViT:
    """The model for images of another size: the patches' positions are resized, as the release does on the way."""
    resized: Any = vit({**case.config, "img_size": size})
    state = module.model.state_dict()
    first, patches = state["pos_embed"].split((1, module.backbone.patches), dim=1)
    grid = patches.transpose(1, 2).unflatten(2, module.backbone.grid)
    grid = interpolate(grid, size=resized.patch_embed.grid_size, mode="bicubic", align_corners=False)
    resized.to(first.dtype).pos_embed = nn.Parameter(torch.cat((first, grid.flatten(2).transpose(1, 2)), dim=1))
    resized.load_state_dict({key: value for key, value in state.items() if key != "pos_embed"}, strict=False)
    return cast("ReducedViT", METHOD.build(resized.eval(), settings_of(case.config)))


PARITY = Parity(build=build, outputs=outputs)
