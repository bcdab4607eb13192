"""VAR's tokenizer beside FoundationVision/VAR."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from reference_impls.layers.grid_vq import as_grid
from reference_impls.parity._ldm import grid_outputs
from reference_impls.tokenizers.var_vq import VarVQ, release_arguments
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY"]


def build(config: Mapping[str, Any], _variant: str) -> VarVQ:
    """The module that the release's configuration describes."""
    return VarVQ(**release_arguments(config))


def outputs(module: VarVQ, case: ParityCase) -> dict[str, Tensor]:
    """Every level, codes and sum of every scale, and the images of all scales and of some."""
    quantize = module.quantize
    found = grid_outputs(module, case.inputs["image"])
    codes = found.pop("tokens").reshape(len(case.inputs["image"]), -1)
    sums = quantize.sums(codes)
    for scale, (part, total) in enumerate(zip(quantize.split(codes), sums, strict=True)):
        found |= {f"tokens_{scale}": part, f"quantized_{scale}": total}
    for name in case.wanted:
        if match := re.fullmatch(r"decoded_tokens_scale_(\d+)", name):
            found[name] = module.decode_grid(sums[int(match[1])]).clamp(-1.0, 1.0)
    full = as_grid(quantize.lookup(codes), quantize.scales[-1])
    return found | {
        "all_tokens": codes,
        "var_input": quantize.next_inputs(codes),
        "reconstruction_clamped": found["reconstruction"].clamp(-1.0, 1.0),
        "decoded_tokens": module.decode_grid(full).clamp(-1.0, 1.0),
    }


PARITY = Parity(build=build, outputs=outputs)
