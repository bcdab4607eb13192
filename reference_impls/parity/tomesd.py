"""ToMe for Stable Diffusion beside dbolya/tomesd: its functions, and how much it merges at which resolution."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from reference_impls.layers.grid_matching import grid_destinations, grid_matching, layer_grid, sources_of, unmerge
from reference_impls.layers.reduction import Matching, TokenState, merge
from reference_impls.reducers.tomesd import METHOD
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY"]

CELL = (2, 2)
"""Of the cases that the release's choice of layers was recorded for."""


def build(_config: Mapping[str, Any], _variant: str) -> nn.Module:
    """Functions alone have no weights."""
    return nn.Identity()


def outputs(_module: nn.Module, case: ParityCase) -> dict[str, Tensor]:
    """Tokens merged and unmerged, or the counts of tokens that each layer's attention and MLP see."""
    if "cases" in case.config:
        return {"counts": torch.tensor([_counts(each.split(",")) for each in _cases(case.config["cases"])])}
    config, x, metric = case.config, case.inputs["x"], case.inputs["metric"]
    grid, cell = (config["h"], config["w"]), (config["sy"], config["sx"])
    destinations = grid_destinations(grid, cell, case.inputs["choice"] if config["randomized"] else None)
    sources = sources_of(grid[0] * grid[1], destinations)
    matching = grid_matching(metric, sources, destinations, min(config["r"], sources.shape[0]))
    state = merge(TokenState(x), matching)
    assert state.size is not None  # noqa: S101  merge gives it
    places = torch.arange(state.x.shape[1], dtype=x.dtype).expand(x.shape[0], -1)[..., None]
    index = unmerge(places, matching)[..., 0].long()
    return {
        "merged_mean": state.x,
        "merged_sum": state.x * state.size[..., None],
        "map": _map(matching),
        "unmerge_index": index,
        "unmerged": unmerge(state.x, matching),
        "roundtrip_attention": unmerge(state.x.tanh(), matching) + x,
    }


def _map(matching: Matching) -> Tensor:
    """Where each token went, `(B, N)`."""
    images, tokens = matching.kept.shape[0], matching.kept.shape[1] + matching.merged.shape[1]
    everyone = torch.arange(tokens).expand(images, -1)
    state = merge(TokenState(torch.zeros(images, tokens, 1, dtype=torch.float64), source=everyone), matching)
    assert state.source is not None  # noqa: S101  merge keeps it
    return state.source


def _cases(text: str) -> list[str]:
    """The recorded cases, each `(height,width),tokens,max_downsample,ratio`."""
    return text.partition(":")[2].replace(" ", "").split(";")


def _counts(case: list[str]) -> tuple[int, int, int]:
    """Tokens left for self-attention, for cross-attention (never merged there) and for an MLP, of one case."""
    latent, tokens = (int(case[0].strip("(")), int(case[1].strip(")"))), int(case[2])
    grid = layer_grid(latent, tokens, max_downsample=int(case[3]))
    if grid is None:
        return tokens, tokens, tokens
    sources = sources_of(tokens, grid_destinations(grid, CELL))
    left = tokens - min(int(tokens * float(case[4])), sources.shape[0])
    return left, tokens, left


PARITY = Parity(build=build, outputs=outputs, layout=METHOD.layout)
