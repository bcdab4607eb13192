"""ToMe beside facebookresearch/ToMe: its patches of timm's ViT and distilled DeiT, and its functions alone."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from reference_impls.layers.matching import bipartite_soft_matching, every_kth_matching, random_matching
from reference_impls.layers.reduction import Matching, TokenState, merge
from reference_impls.layers.vit_driver import ReducedViT
from reference_impls.parity._reducers import outputs as traced
from reference_impls.parity._reducers import reduced
from reference_impls.reducers.tome import METHOD, TomeSettings
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY", "build", "outputs", "settings_of"]


def settings_of(config: Mapping[str, Any]) -> TomeSettings:
    """The settings that a vector's configuration asks for."""
    r, proportional = config.get("r", 8), config.get("prop_attn", True)
    if isinstance(r, Mapping):
        return TomeSettings(r=r["tuple"][0], inflection=r["tuple"][1], proportional=proportional)
    if isinstance(r, list):
        return TomeSettings(per_block=tuple(r), proportional=proportional)
    return TomeSettings(r=r, proportional=proportional)


def build(config: Mapping[str, Any], variant: str) -> nn.Module:
    """The reduced model that the release's configuration describes; a module without weights for functions alone."""
    return nn.Identity() if variant == "functions" else reduced(METHOD, config, settings_of(config))


def outputs(module: ReducedViT, case: ParityCase) -> dict[str, Tensor]:
    """The tokens' ways, or what the functions give."""
    return _functions(case) if case.variant == "functions" else traced(module, case)


def _functions(case: ParityCase) -> dict[str, Tensor]:
    """Matchings without and with protected tokens, by every k-th token and at random, merged by every mode."""
    x, metric, r = case.inputs["x"], case.inputs["metric"], case.config["r"]
    found: dict[str, Tensor] = {}
    for prefix, name in enumerate(("plain", "cls", "cls_dist")):
        found |= _named(f"bipartite_{name}", x, bipartite_soft_matching(metric, r, prefix))
    whole = x.shape[1] - x.shape[1] % math.lcm(*case.config["k"])  # the vector's choice: no rest is dropped
    for k in case.config["k"]:
        found |= _named(f"kth{k}", x[:, :whole], every_kth_matching(metric[:, :whole], k))
    return found | _named("random", x, random_matching(metric, r, case.inputs["noise"]))


def _named(name: str, x: Tensor, matching: Matching) -> dict[str, Tensor]:
    """What the matching makes of tokens `x` by every mode."""
    state = merge(TokenState(x, source=torch.arange(x.shape[1]).expand(len(x), -1)), matching)
    assert state.size is not None and state.source is not None  # noqa: S101, PT018  merge gives both
    into = matching.into[..., None].expand(-1, -1, x.shape[2])
    kept, merged = (x.gather(1, i[..., None].expand(-1, -1, x.shape[2])) for i in (matching.kept, matching.merged))
    found = {"merged": state.x, "mean": state.x, "size": state.size, "map": state.source}
    found["amax"] = kept.scatter_reduce(1, into, merged, "amax")
    found["unmerged"] = state.x.gather(1, state.source[..., None].expand_as(x))
    return {f"{name}_{key}": value for key, value in found.items()}


PARITY = Parity(build=build, outputs=outputs)
