"""No reduction: the model itself, run by the reducers' driver, as the baseline that every reducer is compared with."""

from torch import nn

from reference_impls.layers.reduction import Reduction
from reference_impls.layers.vit_backbone import AttentionKind, inspect_backbone
from reference_impls.layers.vit_driver import ReducedViT
from tokenmark.contracts import NoSettings, Paper, ReducerMethod


def build(model: nn.Module, settings: NoSettings, *, attention: AttentionKind = "fused") -> ReducedViT:
    """Run a timm vision transformer through the driver with all its tokens.

    Raises:
        UnsupportedBackboneError: the driver does not serve `model`.
    """
    del settings
    backbone = inspect_backbone(model, attention)
    return ReducedViT(backbone, Reduction(backbone.unreduced()), attention)


METHOD = ReducerMethod(
    id="none",
    title="No reduction",
    idea="Keep every token: the baseline.",
    paper=Paper(
        title="An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale",
        authors="Dosovitskiy, Beyer, Kolesnikov, Weissenborn, Zhai, Unterthiner, Dehghani, Minderer, Heigold, Gelly, "
        "Uszkoreit, Houlsby",
        year=2021,
        url="https://arxiv.org/abs/2010.11929",
    ),
    build=build,
)
