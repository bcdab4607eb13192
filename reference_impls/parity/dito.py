"""DiTo beside yinboc/dito."""

from collections.abc import Mapping
from itertools import cycle, islice
from typing import Any

from torch import Tensor

from reference_impls.tokenizers.dito import DiTo, release_arguments
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY"]

TIMES = (900.0, 137.5)
"""At which the velocity is recorded, image by image."""


def build(config: Mapping[str, Any], _variant: str) -> DiTo:
    """The module that the release's configuration describes."""
    return DiTo(**release_arguments(config))


def outputs(module: DiTo, case: ParityCase) -> dict[str, Tensor]:
    """The latents, the renderer's output at two times, and the image."""
    encoded, noise = module.encoder(case.inputs["images"]), case.inputs["noise"]
    latents = module.normalised(encoded)
    times = noise.new_tensor(list(islice(cycle(TIMES), len(noise))))
    return {
        "encoder_output": encoded,
        "encoded": latents,
        "velocity": module.velocity(noise, times, latents),
        "reconstruction": module.sample(latents, noise),
    }


PARITY = Parity(build=build, outputs=outputs)
