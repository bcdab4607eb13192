"""DiffRate on CAFormer beside OpenGVLab/DiffRate."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from reference_impls.classifiers.diffrate_caformer import MergingBlock, MergingCaformer
from reference_impls.layers.rate_search import RateCandidates
from reference_impls.parity._taps import tapped
from tokenmark.contracts import Parity, ParityCase

SIZES = ("depths", "dims", "num_classes", "img_size")
SEARCHED = tuple(f"stages.{stage}.{block}.merge_ddp." for stage in (2, 3) for block in range(18))
"""What a search learns, which no checkpoint of the model itself holds."""


def build(config: Mapping[str, Any], _variant: str) -> MergingCaformer:
    """The model that the release's configuration describes, with its search's keys where it has a schedule."""
    sizes = {size: config[size] for size in SIZES if size in config}
    model = MergingCaformer(**sizes, merge_kept=config.get("merge_kept_num"))
    if "merge_kept_num" in config:
        for block in model.modules():
            if isinstance(block, MergingBlock):
                # Of a search that is over the release keeps one candidate, which plays no part.
                block.merge_ddp = RateCandidates((block.kept,))
    return model


def outputs(module: MergingCaformer, case: ParityCase) -> dict[str, Tensor]:
    """The tokens after every block of all stages, and what comes of them."""
    stages = [cast("nn.Sequential", stage) for stage in module.stages]
    blocks = {f"block{i}": block for i, block in enumerate(block for stage in stages for block in stage)}
    with tapped(blocks) as seen:
        features = module.features(case.inputs["image"])
    found = {name: x.flatten(1, 2) if isinstance(x, Tensor) else x.x for name, x in seen.items()}
    counts = [found[name].shape[1] for name in blocks]
    found |= {"tokens_per_block": torch.tensor(counts), "features": features, "logits": module.head(features)}
    # The release takes both layers of the head for as wide as the logits.
    first, last = module.head.fc1, module.head.fc2
    as_released = 2 * last.in_features * last.out_features - first.weight.numel() - last.weight.numel()
    return found | {"macs": torch.tensor(float(module.macs + as_released))}


PARITY = Parity(build=build, outputs=outputs, optional=SEARCHED)
