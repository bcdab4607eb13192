"""LlamaGen's tokenizer beside FoundationVision/LlamaGen."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from reference_impls.parity._ldm import grid_outputs
from reference_impls.tokenizers.llamagen_vq import LlamaGenVQ, release_arguments
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY"]


def build(config: Mapping[str, Any], _variant: str) -> LlamaGenVQ:
    """The module that the release's configuration describes."""
    return LlamaGenVQ(**release_arguments(config))


def outputs(module: LlamaGenVQ, case: ParityCase) -> dict[str, Tensor]:
    """Every level, the codes, and both ways to the image."""
    return grid_outputs(module, case.inputs["image"])


PARITY = Parity(build=build, outputs=outputs)
