"""ELM's generators beside Pepper-lll/LMforImageGeneration."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from reference_impls.generators import elm
from reference_impls.generators.elm import ElmSettings
from reference_impls.layers.class_generator import Watch
from reference_impls.layers.elm_gpt import ElmMlm, ElmNetwork
from reference_impls.parity._recorded import Recorded
from reference_impls.parity._taps import tapped
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY"]

SETTINGS: Mapping[tuple[str, int, str], ElmSettings] = {
    ("ar", 1, "constant"): ElmSettings(cfg_scale=2.0, cfg_schedule="constant", top_k=30),
    ("ar", 2, "linear"): ElmSettings(cfg_scale=4.0, cfg_schedule="linear", top_k=20),
    ("ar", 2, "cos"): ElmSettings(cfg_scale=2.0, cfg_schedule="cos", temperature=0.9),
    ("mlm", 1, "linear"): ElmSettings(cfg_scale=3.0, cfg_schedule="linear", temperature=4.5),
}
"""By kind, parts of a token and name of run, as the vectors' notes give them; steps are as many as the noise has."""


def build(config: Mapping[str, Any], variant: str) -> ElmNetwork:
    """The module that the release's configuration describes; its variant says of which kind it is."""
    return elm.build(None, **elm.release_arguments(config, variant.partition("-")[0]))


def outputs(module: ElmNetwork, case: ParityCase) -> dict[str, Tensor]:
    """Logits with and without the class, what leads to the former, and the codes of every run and its steps."""
    labels = case.inputs["labels"]
    found: dict[str, Tensor] = {}
    if "tokens" in case.inputs:
        tokens = case.inputs["tokens"]
        with tapped({f"after_layer_{index}": layer for index, layer in enumerate(module.layers)}) as seen:
            # Parts are interleaved in the release: (B, L * token_each, K).
            found["logits"] = module.logits(tokens, labels).flatten(1, 2)
        found |= seen
        found["logits_unconditional"] = module.logits(tokens, torch.full_like(labels, module.classes)).flatten(1, 2)
    for name in case.wanted:
        if name.startswith("sampled_tokens_"):
            found |= _sampled(module, case, name.removeprefix("sampled_tokens_"))
    return found


def _sampled(module: ElmNetwork, case: ParityCase, run: str) -> dict[str, Tensor]:
    tokens, labels = case.inputs[f"noise_{run}"], case.inputs["labels"]
    kind = "mlm" if isinstance(module, ElmMlm) else "ar"
    known = SETTINGS[kind, module.token_each, run]
    settings = ElmSettings(known.cfg_scale, known.cfg_schedule, known.temperature, known.top_k, steps=len(tokens))
    if not isinstance(module, ElmMlm):
        codes = module.generate(labels, settings, Recorded({"tokens": tokens}), Watch())
        return {f"sampled_tokens_{run}": codes}
    entering: list[Tensor] = []
    noise = Recorded({"tokens": tokens, "confidence": case.inputs[f"noise_confidence_{run}"]})
    codes = module.generate(labels, settings, noise, Watch(), entering.append)
    return {f"sampled_tokens_{run}": codes, f"ids_entering_steps_{run}": torch.stack(entering[1:])}


PARITY = Parity(build=build, outputs=outputs)
