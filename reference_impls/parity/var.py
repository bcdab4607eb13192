"""VAR beside FoundationVision/VAR, with its tokenizer as the second checkpoint."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from reference_impls.generators.var import Var, VarSettings, release_arguments
from reference_impls.parity._recorded import Recorded, Remembering
from reference_impls.parity._taps import tapped
from reference_impls.tokenizers import var_vq
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY"]

RUNS = {
    "official": VarSettings(cfg=1.5, top_k=20, top_p=0.96),
    "greedy": VarSettings(cfg=4.0, top_k=1, top_p=0.0),
    "plain": VarSettings(cfg=1.5, top_k=0, top_p=0.0),
}
"""The settings of recorded samples."""


def build(config: Mapping[str, Any], _variant: str) -> Var:
    """The transformer that the release's configuration describes."""
    return Var(**release_arguments(config))


def outputs(module: Var, case: ParityCase) -> dict[str, Tensor]:
    """Logits of given codes, and samples to their images, with the guided logits of all scales."""
    tokenizer: var_vq.VarVQ = case.fill(var_vq.VarVQ(**var_vq.release_arguments(case.config["vae"])))
    module.bind(tokenizer)
    labels, codes, quantizer = case.inputs["labels"], case.inputs["tokens"], tokenizer.quantize
    inputs = quantizer.next_inputs(codes)
    with tapped({f"after_block_{index}": block for index, block in enumerate(module.blocks)}) as seen:
        found = {"teacher_input": inputs, "logits": module(labels, inputs)}
        found |= seen
    found["logits_unconditional"] = module(torch.full_like(labels, module.classes), inputs)
    found["f_hat_of_tokens"] = quantizer.sums(codes)[-1]
    for name, settings in RUNS.items():
        if f"noise_{name}" not in case.inputs:
            continue
        # The noise of all scales, one behind the other.
        noise = Recorded({"codes": quantizer.split(case.inputs[f"noise_{name}"])})
        watch = Remembering()
        sampled = module.generate(labels, settings, noise, watch)
        found[f"sampled_tokens_{name}"] = sampled
        found[f"guided_logits_{name}"] = torch.cat(watch.seen, dim=1)
        found[f"f_hat_{name}"] = quantizer.sums(sampled)[-1]
        found[f"image_{name}"] = tokenizer.decode_codes(sampled).clamp(0.0, 1.0)
    return found


PARITY = Parity(build=build, outputs=outputs)
