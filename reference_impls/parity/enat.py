"""ENAT beside LeapLabTHU/ENAT."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from reference_impls.generators import enat
from reference_impls.generators.enat import Enat, SamplerSettings
from reference_impls.layers.class_generator import Watch
from reference_impls.layers.enat_blocks import Stream
from reference_impls.parity._recorded import Recorded
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY"]

NOT_BUILT = ("class_dropout_prob", "sampling")
"""What the configuration says of training and of sampling."""
RUN = {"cfg_scale": 2.5, "mask_temp": 1.5, "samp_temp": 6.0}
"""Settings of the recorded run, which the vector's notes give."""


def build(config: Mapping[str, Any], _variant: str) -> Enat:
    """The module that the release's configuration describes."""
    return enat.build(None, **{name: value for name, value in config.items() if name not in NOT_BUILT})


def outputs(module: Enat, case: ParityCase) -> dict[str, Tensor]:
    """Logits and features with and without those of an earlier step, and every step of the sampler."""
    tokens, later, labels = case.inputs["tokens"], case.inputs["next_tokens"], case.inputs["labels"]
    stream = _streamed(module, tokens, labels)
    reused = _streamed(module, later, labels, stream)
    entering: list[Tensor] = []
    drawn = {"tokens": case.inputs["noise_token_cfg"], "confidence": case.inputs["noise_confidence_cfg"]}
    settings = SamplerSettings(steps=len(drawn["tokens"]), **RUN)
    codes = module.generate(labels, settings, Recorded(drawn), Watch(), entering.append)
    return {
        "logits": _placed(stream, module.logits(stream.features)),
        "features": _placed(stream, stream.features),
        "logits_with_reuse": _placed(reused, module.logits(reused.features)),
        "features_with_reuse": _placed(reused, reused.features),
        "logits_without_reuse": _logits(module, later, labels),
        "logits_unconditional": _logits(module, tokens, torch.full_like(labels, module.classes)),
        "logits_all_masked": _logits(module, torch.full_like(tokens, module.codes), labels),
        "sampled_tokens_cfg": codes,
        "ids_entering_steps_cfg": torch.stack(entering[1:]),
    }


def _streamed(module: Enat, ids: Tensor, labels: Tensor, previous: Stream | None = None) -> Stream:
    return module.streamed(ids, labels, int((ids[0] == module.codes).sum()), previous)


def _logits(module: Enat, ids: Tensor, labels: Tensor) -> Tensor:
    stream = _streamed(module, ids, labels)
    return _placed(stream, module.logits(stream.features))


def _placed(stream: Stream, values: Tensor) -> Tensor:
    """`values` `(B, L, ...)` of a stream in the order of the image."""
    return torch.empty_like(values).scatter(1, stream.positions[..., None].expand_as(values), values)


PARITY = Parity(build=build, outputs=outputs)
