"""CLCA on EViT and on Top-K beside arkel23/CLCA."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from reference_impls.layers.reduction import TokenState
from reference_impls.layers.vit_attention import Attended
from reference_impls.layers.vit_driver import ReducedViT
from reference_impls.parity._reducers import inverse_map, leaving
from reference_impls.reducers.clca import METHOD, ClcaSettings
from tokenmark.contracts import Parity, ParityCase

SIZES = ("img_size", "patch_size", "num_classes", "embed_dim", "depth", "num_heads")
PRETRAINED = 1000
"""Classes of the head that the release's checkpoints keep from before, and that nothing reads."""


def build(config: Mapping[str, Any], variant: str) -> ReducedViT:
    """The reduced model that the release's configuration describes, with the release's keys.

    Its last norm is gone, and its positions have rows for the carriers; `outputs` gives the carriers their own.
    """
    args, deit3 = config.get("args", {}), config.get("deit3", False)
    sizes = {size: config[size] for size in SIZES if size in config}
    model: Any = VisionTransformer(**sizes, no_embed_class=deit3, init_values=1.0 if deit3 else None)
    model.norm = nn.Identity()
    rates = args.get("keep_rate", [0.7])
    settings = ClcaSettings(
        keep_rate=rates[0] if len(rates) == 1 else tuple(rates),
        blocks=tuple(args.get("reduction_loc", (3, 6, 9))),
        fuse=config.get("method", variant.partition("_")[0]) == "evit",
        carriers=args.get("num_clr", 1),
        pool_class=args.get("clc_pool_cls", False),
        pool_carriers=args.get("clc_pool_clr", False),
        recover_at_last=args.get("clc_recover_at_last", True),
        filters=args.get("ifa_dws_conv_groups", 2),
    )
    reduced: Any = METHOD.build(model, settings)
    if not deit3:
        width, positions = config["embed_dim"], reduced.backbone.tokens + settings.carriers
        model.pos_embed = nn.Parameter(torch.zeros(1, positions, width))
    if not args:
        model.head = nn.Linear(config["embed_dim"], PRETRAINED)
    return reduced  # type: ignore[no-any-return]


def outputs(module: ReducedViT, case: ParityCase) -> dict[str, Tensor]:
    """The tokens' ways, before the cache is given back; of what a block keeps, -1 stands for the fused token."""
    model: Any = module.model
    reduction: Any = module.reduction
    count = module.backbone.tokens
    if model.pos_embed.shape[1] > count:
        own, carriers = model.pos_embed.split((count, model.pos_embed.shape[1] - count), dim=1)
        model.pos_embed, reduction.carriers = nn.Parameter(own), nn.Parameter(reduction.carriers + carriers)
    with leaving(reduction) as found, selecting(reduction) as kept:
        logits = module(case.inputs["image"])
    into = torch.tensor([tokens.attention for tokens in module.schedule])
    out = torch.tensor([found[f"block{block}"].shape[1] for block in range(len(module.schedule))])
    return found | kept | {"tokens_into_block": into, "tokens_out_of_block": out, "logits": logits}


@contextmanager
def selecting(reduction: Any) -> Iterator[dict[str, Tensor]]:
    """What each reducing block keeps, as `kept{i}`, the class token not counted; at the end -1 for what is fused."""
    seen: dict[str, Tensor] = {}
    after = reduction.after_attention

    def recorded(block: int, state: TokenState, attended: Attended) -> TokenState:
        batch, tokens = state.x.shape[:2]
        left: TokenState = after(block, replace(state, source=torch.arange(tokens).expand(batch, -1)), attended)
        if block in reduction.kept and left.source is not None:
            kept = inverse_map(left.source[:, 1:] - 1, left.x.shape[1] - 1)[:, : reduction.kept[block]]
            seen[f"kept{block}"] = torch.cat((kept, torch.full((batch, 1), -1)), dim=1)
        return left

    reduction.after_attention = recorded
    try:
        yield seen
    finally:
        del reduction.after_attention


PARITY = Parity(build=build, outputs=outputs)
