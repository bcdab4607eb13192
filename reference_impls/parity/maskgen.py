"""MaskGen beside bytedance/1d-tokenizer, both forms: one pass of the network, and every recorded sample."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from reference_impls.generators import maskgen
from reference_impls.layers.class_generator import Watch
from reference_impls.layers.mar_sampling import MarSettings, visible_of
from reference_impls.layers.maskgen import LAYOUT, MaskGenKL, MaskGenVQ, Text
from reference_impls.layers.maskgen_sampling import VqSettings, sampled_codes, sampled_latents
from reference_impls.parity._mar import head_outputs, recorded
from reference_impls.parity._recorded import Recorded
from reference_impls.parity._taps import tapped
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY"]

RUNS: Mapping[str, Mapping[str, Any]] = {
    "cosine": {"temperature": 2.0, "cfg_scale": 12.0, "cfg_schedule": "cosine"},
    "linear_nosort": {"temperature": 9.0, "cfg_scale": 1.5, "cfg_schedule": "linear", "prob_sorting": False},
}
"""Settings of the recorded samples of codes."""
SAMPLE_SCORE = 6.5
"""The score that the release's sampler of codes takes for all images, whatever it is given."""
SHOWN = 4
"""How many latents are seen where the network is run once."""
HEAD_TOKENS, HEAD_SCALE = 4, 3.0
"""On how many tokens of an image the head is run once, and its guidance there."""


def build(config: Mapping[str, Any], _variant: str) -> MaskGenVQ | MaskGenKL:
    """The module that the release's configuration describes."""
    return maskgen.build(None, **maskgen.release_arguments(config))


def outputs(module: MaskGenVQ | MaskGenKL, case: ParityCase) -> dict[str, Tensor]:
    """Those of whichever form it is."""
    text, empty = _texts(case)
    found = {"micro_encoding": module.encoded_scores(text.scores)}
    if isinstance(module, MaskGenVQ):
        return found | _codes(module, case, text, empty)
    return found | _latents(module, case, text, empty)


def _texts(case: ParityCase) -> tuple[Text, Text]:
    """The given texts, and the empty one with their scores."""
    inputs = case.inputs
    return (
        Text(inputs["text"], inputs["pooled"][:, 0], inputs["score"]),
        Text(inputs["text0"], inputs["pooled0"][:, 0], inputs["score"]),
    )


def _untold(text: Text, empty: Text) -> Text:
    """The empty text for every image."""
    return Text(empty.states.expand_as(text.states), empty.pooled.expand_as(text.pooled), text.scores)


def _codes(module: MaskGenVQ, case: ParityCase, text: Text, empty: Text) -> dict[str, Tensor]:
    codes, inputs = case.inputs["tokens"], case.inputs
    with tapped({f"after_block_{index}": block for index, block in enumerate(module.blocks)}) as seen:
        found = {"logits": module(codes, module.read(text))}
    # A block gives tokens and text.
    found |= {name: both[0] for name, both in seen.items()}
    found["logits_unconditional"] = module(codes, module.read(_untold(text, empty)))
    asked = text._replace(scores=torch.full_like(text.scores, SAMPLE_SCORE))
    for run, chosen in RUNS.items():
        entering: list[Tensor] = []
        rows = {"tokens": inputs[f"noise_token_{run}"], "confidence": inputs[f"noise_confidence_{run}"]}
        settings = VqSettings(steps=len(rows["tokens"]), **chosen)
        sampled = sampled_codes(module, asked, empty, settings, Recorded(rows), Watch(), entering.append)
        found |= {f"sampled_tokens_{run}": sampled, f"ids_entering_steps_{run}": torch.stack(entering[1:])}
    return found


def _latents(module: MaskGenKL, case: ParityCase, text: Text, empty: Text) -> dict[str, Tensor]:
    latents, inputs = case.inputs["latents"], case.inputs
    visible = visible_of(inputs["orders"], module.length - SHOWN)
    decoded = module.features(latents, visible, module.read(text))
    untold = module.features(latents, visible, module.read(_untold(text, empty)))
    found = {"decoded": decoded, "decoded_unconditional": untold}
    told, blind = (part[:, :HEAD_TOKENS].flatten(0, 1) for part in (decoded, untold))
    found |= head_outputs(module.head, case, told, blind, HEAD_SCALE)
    masks: list[Tensor] = []

    def entering(written: Tensor, _scale: float) -> None:
        masks.append(torch.ones(len(written), module.length, dtype=torch.int64).scatter(1, written, 0))

    noise = recorded(case, "linear")
    settings = MarSettings(steps=5, cfg_scale=3.0, diffusion_steps=int(case.config["losses"]["num_sampling_steps"]))
    sampled = sampled_latents(module, text, empty, settings, noise, Watch(), entering)
    found["sampled_latents_linear"] = sampled.transpose(1, 2).unsqueeze(2)
    found["masks_after_iterations_linear"] = torch.stack(masks[1:])
    return found


PARITY = Parity(build=build, outputs=outputs, layout=LAYOUT)
