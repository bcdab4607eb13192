"""LlamaGen's generators beside FoundationVision/LlamaGen."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from reference_impls.generators import llamagen_gpt
from reference_impls.generators.llamagen_gpt import LlamaGenGpt, LlamaGenSettings
from reference_impls.parity._recorded import Recorded, Remembering
from reference_impls.parity._taps import tapped
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY"]

SETTINGS: Mapping[str, LlamaGenSettings] = {
    "cfg": LlamaGenSettings(cfg_scale=2.0),
    "topk_topp": LlamaGenSettings(cfg_scale=1.75, temperature=0.9, top_k=20, top_p=0.8, cfg_interval=6),
    "greedy": LlamaGenSettings(cfg_scale=4.0, greedy=True),
    "no_cfg": LlamaGenSettings(cfg_scale=1.0, top_k=5),
}
"""By name of run, as the vector's notes give them; others have theirs in the configuration."""


def build(config: Mapping[str, Any], _variant: str) -> LlamaGenGpt:
    """The module that the release's configuration describes."""
    return llamagen_gpt.build(None, **llamagen_gpt.release_arguments(config))


def outputs(module: LlamaGenGpt, case: ParityCase) -> dict[str, Tensor]:
    """Logits with and without the class, what leads to the former, and the codes of every run."""
    labels = case.inputs["labels"]
    found = {"rope_table": module.rotation()}
    if "tokens" in case.inputs:
        tokens = case.inputs["tokens"]
        with tapped({f"after_layer_{index}": layer for index, layer in enumerate(module.layers)}) as seen:
            found["logits"] = module.logits(tokens, labels)
        found |= seen
        found["logits_unconditional"] = module.logits(tokens, torch.full_like(labels, module.classes))
    for name in case.wanted:
        if name.startswith("sampled_tokens"):
            run = name.removeprefix("sampled_tokens")
            noise, watch = case.inputs.get(f"noise{run}"), Remembering()
            recorded = Recorded({} if noise is None else {"tokens": noise})
            found[name] = module.generate(labels, _settings(run.removeprefix("_"), case.config), recorded, watch)
            found[f"guided_logits{run}"] = torch.stack(watch.seen[:4])
    return found


def _settings(run: str, config: Mapping[str, Any]) -> LlamaGenSettings:
    """Those of the run's name, or of the release's configuration."""
    sampling = config.get("sampling")
    if sampling is None:
        return SETTINGS[run]
    names = ("cfg_scale", "temperature", "top_k", "top_p", "cfg_interval")
    given = {name: sampling[name] for name in names if name in sampling}
    return LlamaGenSettings(**given, greedy=not sampling.get("sample_logits", True))


PARITY = Parity(build=build, outputs=outputs)
