"""Open-MAGVIT2 beside TencentARC/SEED-Voken."""

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor

from reference_impls.layers.magvit_conv import MagvitDecoder
from reference_impls.parity._ldm import grid_outputs
from reference_impls.parity._taps import tapped
from reference_impls.tokenizers.open_magvit2 import OpenMagvit2, release_arguments
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY"]


def build(config: Mapping[str, Any], _variant: str) -> OpenMagvit2:
    """The module that the release's configuration describes."""
    return OpenMagvit2(**release_arguments(config))


def outputs(module: OpenMagvit2, case: ParityCase) -> dict[str, Tensor]:
    """Every level, the codes, and both ways to the image."""
    decoder = cast("MagvitDecoder", module.decoder)
    with tapped({f"decoder_adaptive_{index}": norm for index, norm in enumerate(decoder.adaptive)}) as seen:
        found = grid_outputs(module, case.inputs["image"])
    return seen | found


PARITY = Parity(build=build, outputs=outputs)
