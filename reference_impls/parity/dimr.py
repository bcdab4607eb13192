"""DiMR beside qihao067/DiMR."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from reference_impls.generators import dimr
from reference_impls.generators.dimr import Dimr, SamplerSettings
from reference_impls.layers.class_generator import Watch
from reference_impls.layers.dimr_network import Stage
from reference_impls.parity._mar import gaussian
from reference_impls.parity._recorded import Recorded
from reference_impls.parity._taps import tapped
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY"]

RUNS: Mapping[str, SamplerSettings] = {
    "constant": SamplerSettings(steps=10, cfg_scale=0.4, cfg_scale_pow=-1.0),
    "decay": SamplerSettings(steps=8, cfg_scale=2.5, cfg_scale_pow=2.0),
}
"""Settings of the recorded runs, which the vector's notes give."""


def build(config: Mapping[str, Any], _variant: str) -> Dimr:
    """The module that the release's configuration describes."""
    return dimr.build(None, **{name: config[name] for name in ("channels", "num_classes", "stage_configs")})


def outputs(module: Dimr, case: ParityCase) -> dict[str, Tensor]:
    """Both stages' predictions, what is between them, and the latents of both samplers."""
    x, when, labels = case.inputs["x"], case.inputs["log_snr"], case.inputs["labels"]
    coarse, fine = (cast(Stage, stage) for stage in module.stages)
    stages: dict[str, Any] = {"stage0_input": coarse.entry, "stage0_after_block_0": coarse.blocks[0]}
    stages |= {"stage1_upsampled": fine.upsample, "stage1_after_block_0": fine.blocks[0]}
    with tapped(stages) as seen:
        low, high = module(x, when, labels)
    found = dict(seen) | {
        "prediction_low": low,
        "prediction": high,
        "prediction_unconditional": module(x, when, torch.full_like(labels, module.classes))[-1],
        "prediction_same_time": module(x, when[:1], labels)[-1],
    }
    for name, settings in RUNS.items():
        times: list[float] = []
        # Every call of the network tells the time that its first norm is given.
        hook = coarse.register_forward_pre_hook(
            lambda _module, given, times=times: times.append(_thousandths(given[1]))
        )
        noise = Recorded({"start": gaussian(case.inputs[f"noise_{name}"])[None]})
        found[f"sampled_latents_{name}"] = module.generate(labels, settings, noise, Watch())
        hook.remove()
        found[f"evaluation_times_{name}"] = torch.tensor(times, dtype=torch.float64)
    return found


def _thousandths(when: Tensor) -> float:
    """1000 t of the 8 t - 4 that the network is given."""
    return float((when[0] + 4.0) / 8.0 * 1000.0)


PARITY = Parity(build=build, outputs=outputs)
