"""ToMe beside facebookresearch/ToMe: its patches of timm's ViT and distilled DeiT, and its functions alone."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from reference_impls.layers.matching import bipartite_soft_matching
from reference_impls.layers.reduction import TokenState, merge
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
    """Matchings without and with protected tokens, merged by every mode."""
    x, metric = case.inputs["x"], case.inputs["metric"]
    found: dict[str, Tensor] = {}
    for prefix, name in enumerate(("plain", "cls", "cls_dist")):
        matching = bipartite_soft_matching(metric, case.config["r"], prefix)
        state = merge(TokenState(x, source=torch.arange(x.shape[1]).expand(2, -1)), matching)
        assert state.size is not None and state.source is not None  # noqa: S101, PT018  merge gives both
        into = matching.into[..., None].expand(-1, -1, x.shape[2])
        kept, merged = (x.gather(1, i[..., None].expand(-1, -1, x.shape[2])) for i in (matching.kept, matching.merged))
        each = {"merged": state.x, "mean": state.x, "size": state.size, "map": state.source}
        each["amax"] = kept.scatter_reduce(1, into, merged, "amax")
        each["unmerged"] = state.x.gather(1, state.source[..., None].expand_as(x))
        found |= {f"bipartite_{name}_{key}": value for key, value in each.items()}
    return found


PARITY = Parity(build=build, outputs=outputs)
