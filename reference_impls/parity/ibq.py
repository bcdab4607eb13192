"""IBQ beside TencentARC/SEED-Voken."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from reference_impls.layers.grid_vq import as_rows
from reference_impls.parity._ldm import grid_outputs, of_whole_size
from reference_impls.tokenizers.ibq import IBQ
from reference_impls.tokenizers.vqgan import network_arguments
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY"]


def build(config: Mapping[str, Any], _variant: str) -> IBQ:
    """The module that the release's configuration describes."""
    return IBQ(**of_whole_size(network_arguments(config), len(config["ddconfig"]["ch_mult"])))


def outputs(module: IBQ, case: ParityCase) -> dict[str, Tensor]:
    """Every level, the codes, and both ways to the image."""
    found = grid_outputs(module, case.inputs["image"])
    return found | {"tokens": module.quantize.codes(as_rows(found["encoded"])).flatten()}


PARITY = Parity(build=build, outputs=outputs)
