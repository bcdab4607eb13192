"""ALIT beside ShivamDuggal4/adaptive-length-tokenizer."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from reference_impls.tokenizers.alit import ALIT, first_below, release_arguments
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY"]


def build(config: Mapping[str, Any], _variant: str) -> ALIT:
    """The module that the release's configuration describes."""
    return ALIT(**release_arguments(config))


def outputs(module: ALIT, case: ParityCase) -> dict[str, Tensor]:
    """The base tokenizer's latents, every round, and the round that the batch as a whole would end with."""
    images = case.inputs["images"]
    latents, codes = module.base_tokenizer.latents(images)
    rounds = module.max_tokens // module.init_tokens
    found = module.rollout(images, rounds, latents, codes, case.inputs.get("bernoulli_uniform"))
    given = {"base_latents": latents}
    if codes is not None:
        given["base_indices"] = codes
    for index, one in enumerate(found):
        given |= {
            f"encoded_{index}": one.encoded,
            f"quantized_{index}": one.tokens,
            f"decoder_output_{index}": one.predicted,
            f"reconstruction_{index}": one.images,
            f"all_embeddings_{index}": one.features,
        }
        if one.codes is not None:
            given[f"tokens_{index}"] = one.codes
    # The release chooses one round for the batch.
    distances = module.distances(found, images).mean(1)
    chosen = first_below(distances, module.select_threshold)
    return given | {
        "batch_l1_per_iteration": distances,
        "selected_token_count": (chosen + 1).reshape(1) * module.init_tokens,
        "selected_reconstruction": found[int(chosen)].images,
    }


PARITY = Parity(build=build, outputs=outputs)
