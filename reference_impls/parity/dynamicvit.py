"""DynamicViT beside raoyongming/DynamicViT: on DeiT, LV-ViT, ConvNeXt and Swin."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from reference_impls.classifiers import dynamicvit_convnext, dynamicvit_swin
from reference_impls.layers.lv_vit import LvVit
from reference_impls.layers.stages import Stages
from reference_impls.parity._reducers import outputs as traced
from reference_impls.parity._reducers import reduced
from reference_impls.parity._taps import tapped
from reference_impls.reducers.dynamicvit import LAYOUT, METHOD
from tokenmark.contracts import Parity, ParityCase

SHARED = ("img_size", "patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio", "skip_lam", "num_classes")
ARGUMENTS = {
    "convnext": ("img_size", "depths", "dims", "sparse_ratio", "pruning_loc", "num_classes"),
    "swin": (
        *("img_size", "embed_dim", "depths", "num_heads", "window_size", "sparse_ratio", "pruning_loc", "num_classes"),
    ),
}


class AsReduced(nn.Module):
    """A classifier whose keys are called as if it were a reduced model, for which the layout is."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def state_dict(self, *_: Any, **__: Any) -> dict[str, Any]:  # type: ignore[override]
        """The classifier's own tensors."""
        return {LAYOUT.module_key(key): value for key, value in self.model.state_dict().items()}


def build(config: Mapping[str, Any], variant: str) -> nn.Module:
    """The model that the release's configuration and variant describe."""
    kind = variant.partition("-")[0]
    if kind in ARGUMENTS:
        method = dynamicvit_convnext.METHOD if kind == "convnext" else dynamicvit_swin.METHOD
        given = {
            key: tuple(value) if isinstance(value, list) else value
            for key in ARGUMENTS[kind]
            if (value := config.get(key)) is not None
        }
        return AsReduced(method.build(**given))
    blocks = tuple(config["pruning_loc"])
    ratios = tuple(config.get("token_ratio", (0.7, 0.49, 0.343)))
    sizes = {key: config[key] for key in SHARED if key in config}
    return reduced(METHOD, config, Stages(keep_rate=ratios, blocks=blocks), LvVit(**sizes) if kind == "lvvit" else None)


def outputs(module: Any, case: ParityCase) -> dict[str, Tensor]:
    """The tokens' ways and the predictors' scores; of classifiers what leaves every block, and who goes which way."""
    if isinstance(module, AsReduced):
        return _ways(module.model, case)
    predictors = dict(enumerate(module.reduction.score_predictor))
    with tapped({f"scores{stage}": predictor for stage, predictor in predictors.items()}) as seen:
        found = traced(module, case)
    return {**found, **seen}


def _ways(model: Any, case: ParityCase) -> dict[str, Tensor]:
    convnext = isinstance(model, dynamicvit_convnext.DynamicConvNeXt)
    stages = model.stages if convnext else [layer.blocks for layer in model.layers]
    predictors = model.score_predictor if convnext else model.layers[2].score_predictor
    taps = {f"block{i}": block for i, block in enumerate(block for blocks in stages for block in blocks)}
    with tapped(taps | {f"scores{j}": each for j, each in enumerate(predictors)} | {"normed": model.norm}) as seen:
        logits = model(case.inputs["image"])
    normed = seen.pop("normed")
    found = {name: x if convnext or x.ndim == 3 else x.flatten(1, 2) for name, x in seen.items()}
    found |= {"logits": logits, "features": normed if convnext else normed.mean(dim=(1, 2))}
    for stage, ratio in enumerate(model.ratios):
        scores = found[f"scores{stage}"]
        keep = scores[:, 0].flatten(1) if convnext else scores[..., 0]
        order, kept = keep.argsort(dim=1, descending=True, stable=True), int(keep.shape[1] * ratio)
        found |= {f"slow_stage{stage}": order[:, :kept], f"fast_stage{stage}": order[:, kept:]}
    return found


PARITY = Parity(build=build, outputs=outputs)
