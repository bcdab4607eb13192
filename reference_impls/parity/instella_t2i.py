"""Instella-T2I's tokenizer beside AMD-AGI/Instella-T2I."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from reference_impls.parity._taps import tapped
from reference_impls.tokenizers.instella_t2i import InstellaT2I, release_arguments
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY"]


def build(config: Mapping[str, Any], _variant: str) -> InstellaT2I:
    """The module that the release's configuration describes."""
    return InstellaT2I(**release_arguments(config))


def outputs(module: InstellaT2I, case: ParityCase) -> dict[str, Tensor]:
    """Bits and images of any size, and the same bits decoded to another size."""
    images = case.inputs["images"]
    found = {}
    with tapped({"encoded": module.encoder, "decoder_output": module.decoder}) as seen:
        logits = module.bit_logits(images)
        bits = (logits > 0).long()
        latents = module.quantizer.lookup(bits)
        if "decode_size" in case.config:
            found["reconstruction_other_size"] = module.decode_latents(latents, tuple(case.config["decode_size"]))
        found["reconstruction"] = module.decode_latents(latents, (images.shape[2], images.shape[3]))
    return seen | found | {"bit_logits": logits, "tokens": bits, "quantized": latents}


PARITY = Parity(build=build, outputs=outputs)
