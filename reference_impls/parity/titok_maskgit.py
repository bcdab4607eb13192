"""TiTok's generators beside bytedance/1d-tokenizer."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from reference_impls.generators import titok_maskgit
from reference_impls.generators.titok_maskgit import METHOD, ImageBert, SamplerSettings, UViTBert
from reference_impls.layers.class_generator import Watch
from reference_impls.parity._recorded import Recorded
from reference_impls.parity._taps import tapped
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY"]

SETTINGS: Mapping[tuple[str, str], SamplerSettings] = {
    ("ViT", "linear"): METHOD.presets["titok-l32-paper"].settings,
    ("ViT", "constant"): SamplerSettings(
        temperature=4.5, cfg_scale=3.0, cfg_schedule="constant", softmax_annealing=False
    ),
    ("UViT", "power_cosine"): METHOD.presets["titok-s128-paper"].settings,
    ("UViT", "linear"): METHOD.presets["titok-b64-paper"].settings,
}
"""By network and name of run, as the vectors' notes give them; the number of steps is that of the noise."""


def build(config: Mapping[str, Any], _variant: str) -> ImageBert | UViTBert:
    """The module that the release's configuration describes."""
    return titok_maskgit.build(None, **titok_maskgit.release_arguments(config))


def outputs(module: ImageBert | UViTBert, case: ParityCase) -> dict[str, Tensor]:
    """Logits with and without the class, what leads to the former, and every step of each run."""
    labels = case.inputs["labels"]
    found: dict[str, Tensor] = {}
    if "tokens" in case.inputs:
        tokens = case.inputs["tokens"]
        with tapped(_stages(module)) as seen:
            found["logits"] = module.logits(tokens, labels)
        found |= seen
        found["logits_unconditional"] = module.logits(tokens, torch.full_like(labels, module.classes))
    for name, noise in case.inputs.items():
        if name.startswith("noise_token"):
            run = name.removeprefix("noise_token")
            settings = _settings(run.removeprefix("_"), len(noise), case.config)
            rows = {"tokens": noise, "confidence": case.inputs[f"noise_confidence{run}"]}
            entering: list[Tensor] = []
            found[f"sampled_tokens{run}"] = module.generate(labels, settings, Recorded(rows), Watch(), entering.append)
            found[f"ids_entering_steps{run}"] = torch.stack(entering)[1:]
    return found


def _stages(module: ImageBert | UViTBert) -> dict[str, nn.Module]:
    """The parts whose outputs vectors record."""
    if isinstance(module, ImageBert):
        layers = enumerate(cast(nn.ModuleList, module.model.encoder["layer"]))
        return {"embeddings": module.model.embeddings} | {f"after_layer_{index}": layer for index, layer in layers}
    outward = {f"after_out_block_{index}": block for index, block in enumerate(module.out_blocks)}
    inward = {"after_in_blocks": module.in_blocks[-1], "after_mid_block": module.mid_block}
    return {"embeddings": module.embeddings, **inward, **outward}


def _settings(run: str, steps: int, config: Mapping[str, Any]) -> SamplerSettings:
    """Those of the run's name, or of the release's configuration, for so many steps."""
    network, sampling = config["model"]["generator"]["model_type"], config.get("sampling")
    if sampling is None:
        return replace(SETTINGS[network, run], steps=steps)
    return SamplerSettings(
        steps=steps,
        temperature=sampling["randomize_temperature"],
        cfg_scale=sampling["guidance_scale"],
        cfg_schedule=sampling["guidance_decay"],
        softmax_annealing=sampling["softmax_temperature_annealing"],
    )


PARITY = Parity(build=build, outputs=outputs)
