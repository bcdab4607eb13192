"""What the vectors of token reduction share: the vision transformer of a configuration, and what its tokens became."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import timm
import torch
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from reference_impls.layers.reduction import Reduction, TokenState
from reference_impls.layers.vit_driver import ReducedViT
from reference_impls.parity._taps import tapped
from tokenmark.contracts import ParityCase, ReducerMethod

__all__ = [
    "entering",
    "inverse_map",
    "keep_rate_of",
    "leaving",
    "mae",
    "outputs",
    "reduced",
    "stages_of",
    "step_map",
    "vit",
]

SIZES = ("img_size", "patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio", "qkv_bias", "num_classes")


def vit(config: Mapping[str, Any]) -> nn.Module:
    """The timm model of a vector's configuration: by its sizes, or by timm's own name."""
    if "embed_dim" not in config:
        return timm.create_model(config["name"])
    kind = VisionTransformerDistilled if config.get("distilled") else VisionTransformer
    pool = config.get("global_pool") in (True, "avg")
    return kind(
        **{size: config[size] for size in SIZES if size in config},
        norm_layer=partial(nn.LayerNorm, eps=config.get("norm_eps", 1e-6)),
        global_pool="avg" if pool else "token",
    )


def mae(config: Mapping[str, Any]) -> nn.Module:
    """The MAE classifier of a vector's configuration: by its sizes, or by MAE's own name; it pools the mean."""
    if "embed_dim" not in config:
        pool = "avg" if config["global_pool"] else "token"
        return timm.create_model(f"{config['name']}_224", num_classes=1000, global_pool=pool)
    return vit({"global_pool": True, **config})


def reduced(
    method: ReducerMethod, config: Mapping[str, Any], settings: Any, model: nn.Module | None = None
) -> ReducedViT:
    """The reduced model of a vector's configuration, or `model` reduced."""
    return cast("ReducedViT", method.build(vit(config) if model is None else model, settings))


def keep_rate_of(config: Mapping[str, Any]) -> float | tuple[float, ...]:
    """The `keep_rate` setting of a vector: one rate for all stages, or fractions, also for counts of 196 patches."""
    rates = config.get("keep_rate") or config["reduction_ratio"]
    if len(rates) == 1:
        return float(rates[0])
    patches = (config["img_size"] // config["patch_size"]) ** 2
    # Half a patch more, so that int(patches * fraction) is the count whatever the division rounds to.
    return tuple((rate + 0.5) / patches if rate >= 1 else rate for rate in rates)


def stages_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of `Stages` that a vector of Haurum's release asks for."""
    return {"keep_rate": keep_rate_of(config), "blocks": tuple(config["reduction_loc"])}


def outputs(module: ReducedViT, case: ParityCase) -> dict[str, Tensor]:
    """What the vectors of all reducers record, as far as the tokens' ways tell it.

    After block i `block{i}` (tokens), and `source{i}` (which of them holds each original one); where block i reduces
    `assignment{i}` (for every patch that entered the place of its successor, -1 if there is none), `kept{i}` (for
    every patch that is left the one that it was) and, counted by stages, `merge{k}_map`, `kept_stage{k}`. `entering{i}`
    are the tokens that enter block i, after what the method did before it.
    """
    model: Any = module.model
    average = getattr(model, "global_pool", "token") == "avg"  # LV-ViT has no such thing
    pooled = {"pooled": model.fc_norm} if average else {"normed": model.norm}
    with tapped(pooled) as seen, entering(module.reduction) as found:
        trace = module.trace(case.inputs["image"])
    found |= {f"block{i}": x for i, x in enumerate(trace.tokens)}
    found |= {f"source{i}": source for i, source in enumerate(trace.sources)}
    found |= {"logits": trace.logits, "size": trace.size, "final_size": trace.size}
    found["tokens_per_block"] = torch.tensor([x.shape[1] for x in trace.tokens])
    found["final_source_map"] = trace.sources[-1]
    found["final_source_sums"] = _counts(trace.sources[-1])
    stage, count = 0, module.backbone.tokens
    for block, tokens in enumerate(trace.tokens):
        if tokens.shape[1] < count:
            step, prefix = step_map(found, block, count), module.backbone.prefix
            found[f"merge{stage}_map"] = step[0]
            found[f"assignment{block}"] = torch.where(step[:, prefix:] < 0, -1, step[:, prefix:] - prefix)
            found[f"kept{block}"] = inverse_map(found[f"assignment{block}"], tokens.shape[1] - prefix)
            found[f"kept_stage{stage}"] = found[f"kept{block}"]
            stage += 1
        count = tokens.shape[1]
    if "pooled" in seen:
        return found | {"features": seen["pooled"]}
    names = ("features_cls", "features_dist") if module.backbone.prefix == 2 else ("features",)
    return found | {name: seen["normed"][:, i] for i, name in enumerate(names)}


@contextmanager
def entering(reduction: Reduction) -> Iterator[dict[str, Tensor]]:
    """The tokens that enter each block after what the method did before it, as `entering{i}`; filled in by a pass."""
    seen: dict[str, Tensor] = {}
    before = reduction.before_block

    def recorded(block: int, state: TokenState) -> TokenState:
        state = before(block, state)
        seen[f"entering{block}"] = state.x
        return state

    reduction.before_block = recorded  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        del reduction.before_block


@contextmanager
def leaving(reduction: Reduction) -> Iterator[dict[str, Tensor]]:
    """The tokens that leave each block before the method acts on them, as `block{i}`; filled in by a pass."""
    seen: dict[str, Tensor] = {}
    after = reduction.after_block

    def recorded(block: int, state: TokenState) -> TokenState:
        seen[f"block{block}"] = state.x
        return after(block, state)

    reduction.after_block = recorded  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        del reduction.after_block


def _counts(source: Tensor) -> Tensor:
    """How many original tokens each final token holds, `(B, N)`."""
    counts = source.new_zeros(source.shape[0], int(source.max()) + 1)
    return counts.scatter_add(1, source.clamp(min=0), (source >= 0).to(source.dtype))


def step_map(found: Mapping[str, Tensor], block: int, tokens: int) -> Tensor:
    """For each of the `tokens` tokens that enter `block` its place after it, `(B, tokens)`; -1 where it was dropped."""
    after = found[f"source{block}"]
    before = found[f"source{block - 1}"] if block else torch.arange(after.shape[1]).expand_as(after)
    steps = torch.full((after.shape[0], tokens), -1)
    for image in range(after.shape[0]):
        alive = before[image] >= 0
        steps[image, before[image][alive]] = after[image][alive]
    return steps


def inverse_map(assignment: Tensor, count: int) -> Tensor:
    """For each of `count` places the first that `assignment` `(B, N)` sends there, `(B, count)`; -1 where none goes."""
    kept = torch.full((assignment.shape[0], count), -1)
    for position in reversed(range(assignment.shape[1])):
        for image, place in enumerate(assignment[:, position].tolist()):
            if place >= 0:
                kept[image, place] = position
    return kept
