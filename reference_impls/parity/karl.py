"""KARL beside ShivamDuggal4/karl."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from reference_impls.tokenizers.karl import KARL, release_arguments
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY"]


def build(config: Mapping[str, Any], _variant: str) -> KARL:
    """The module that the release's configuration describes."""
    return KARL(**release_arguments(config))


def outputs(module: KARL, case: ParityCase) -> dict[str, Tensor]:
    """The base tokenizer's latents, and every recorded image at its budgets; the release runs images alone."""
    images = case.inputs["images"]
    latents, codes = module.base_tokenizer.latents(images)
    given = {"base_latents": latents}
    if codes is not None:
        given["base_indices"] = codes
    wanted = {match.groups() for name in case.wanted if (match := re.search(r"_b(\d+)_n(\d+)$", name))}
    for image, budget in ((int(image), int(budget)) for image, budget in wanted):
        one = slice(image, image + 1)
        quality = case.config["desired_reconstruction_quality"][image]
        found = module.encode_tokens(images[one], latents[one], budget, quality)
        predicted = module.predict(found.tokens, found.keep)
        outcome = {
            "encoded": found.encoded,
            "halt_logits": found.halt_logits,
            "active_tokens": found.keep.sum(1, keepdim=True),
            "quantized": found.tokens,
            "decoder_output": predicted,
            "reconstruction": module.base_tokenizer.decode(predicted, module.grid),
        }
        if found.codes is not None:
            outcome["tokens"] = found.codes
        given |= {f"{name}_b{image}_n{budget}": value for name, value in outcome.items()}
    return given


PARITY = Parity(build=build, outputs=outputs)
