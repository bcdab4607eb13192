"""SEED-2 beside AILab-CVC/SEED."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from reference_impls.parity._taps import tapped
from reference_impls.tokenizers.seed import Seed, release_arguments
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY"]


def build(config: Mapping[str, Any], _variant: str) -> Seed:
    """The module that the release's configuration describes."""
    return Seed(**release_arguments(config))


def outputs(module: Seed, case: ParityCase) -> dict[str, Tensor]:
    """From the features of normalised images to the image embedding."""
    with tapped({"vision_features": module.ln_vision, "decoded_queries": module.decode_task_layer}) as seen:
        queries = module.encode_queries(case.inputs["images"])
        encoded = module.encode_task_layer(queries)
        quantized = module.quantize(encoded)
        embedding = module.embed_rows(module.quantize.lookup(quantized.codes))
    return seen | {
        "qformer_output": queries,
        "encoded": encoded,
        "tokens": quantized.codes,
        "quantized": quantized.quantized,
        "image_embedding": embedding,
    }


PARITY = Parity(build=build, outputs=outputs)
