"""Sparsifiner on DeiT and on LV-ViT beside lim142857/Sparsifiner."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from reference_impls.layers.lv_vit import LvVit
from reference_impls.layers.vit_driver import ReducedViT
from reference_impls.parity._reducers import outputs as traced
from reference_impls.parity._reducers import vit
from reference_impls.parity._taps import tapped
from reference_impls.reducers.sparsifiner import METHOD, SparsifinerSettings
from tokenmark.contracts import Parity, ParityCase

LV_SIZES = ("img_size", "patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio", "num_classes")


def build(config: Mapping[str, Any], variant: str) -> ReducedViT:
    """The reduced model that the release's configuration describes."""
    if "lvvit" in variant:
        model: nn.Module = LvVit(**{size: config[size] for size in LV_SIZES})
    else:
        model = vit(config)
    rates, blocks, rules = config["attn_keep_rate"], config.get("token_pruning_loc", []), config.get("spar")
    cuts: dict[str, Any] = {}
    if rules is not None:
        cuts["basis_above"] = rules["BASIS_THRESHOLD"]
        cuts["basis_top"] = rules["BASIS_COEF"]["TOPK"] if rules["BASIS_COEF"]["USE_TOPK"] else None
        cuts["coefficient_above"] = rules["BASIS_COEF"]["THRESHOLD"]
        cuts["score_above"] = None if rules["ATTN_SCORE"]["USE_TOPK"] else rules["ATTN_SCORE"]["THRESHOLD"]
    settings = SparsifinerSettings(
        attn_keep_rate=tuple(rates) if isinstance(rates, list) else rates,
        prune_blocks=tuple(blocks),
        token_keep_rate=tuple(config["token_keep_rate"][block] for block in blocks),
        reduce_n=config["reduce_n_factor"],
        reduce_c=config["reduce_c_factor"],
        shared_projection=config.get("share_inout_proj", False),
        **cuts,
    )
    return cast("ReducedViT", METHOD.build(model, settings))


def outputs(module: ReducedViT, case: ParityCase) -> dict[str, Tensor]:
    """The tokens and what the predictors said; rows of patches that were put out before a block are zeros there."""
    predictors: Any = module.reduction.predictors
    with tapped({str(block): predictor for block, predictor in enumerate(predictors)}) as seen:
        found = traced(module, case)
    drops_rows = case.config["spar"]["PRUNE_ATTN_MATRIX_ROW"]
    zeros: dict[str, list[Tensor]] = {"basis": [], "basis_coef": [], "attn_mask": []}
    alive = torch.ones_like(found["block0"][:, :, 0])
    for block, predictor in enumerate(predictors):
        coefficients, attention, mask = cast("Any", seen[str(block)])
        rows = alive[:, None, :, None]
        shown = (mask * rows)[0]
        places = torch.arange(mask.shape[3])
        found[f"basis_coef{block}"] = coefficients * rows[:, :, 1:]
        found[f"approx_attn{block}"] = attention * rows[:, :, 1:]
        found[f"mask_count{block}"] = shown.sum(dim=-1).long()
        found[f"mask_index_sum{block}"] = (shown * places).sum(dim=-1).long()
        zeros["basis"].append(predictor.basis)
        zeros["basis_coef"].append(coefficients)
        zeros["attn_mask"].append(mask * rows if drops_rows else mask)
        alive = (found[f"source{block}"] >= 0).to(alive.dtype)
        found[f"token_mask{block}"] = alive[:, 1:].long()
    shares = {f"{name}_sparsity": [(each == 0).double().mean() for each in what] for name, what in zeros.items()}
    return found | {name: torch.stack(each).mean() for name, each in shares.items()}


PARITY = Parity(build=build, outputs=outputs)
