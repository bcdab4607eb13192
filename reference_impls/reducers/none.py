"""No reduction: the model itself, run by the reducers' driver, as the baseline that every reducer is compared with."""

from reference_impls.layers.reduction import Reduction
from reference_impls.layers.vit_backbone import Backbone
from reference_impls.layers.vit_driver import reducer
from tokenmark.contracts import NoSettings, Paper


class NoReduction(Reduction):
    """Keeps every token."""

    def __init__(self, backbone: Backbone, settings: NoSettings) -> None:
        del settings
        super().__init__(backbone, backbone.unreduced())


METHOD = reducer(
    NoReduction,
    id="none",
    title="No reduction",
    idea="Keep every token: the baseline.",
    acts="nowhere",
    paper=Paper(
        title="An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale",
        authors="Dosovitskiy, Beyer, Kolesnikov, Weissenborn, Zhai, Unterthiner, Dehghani, Minderer, Heigold, Gelly, "
        "Uszkoreit, Houlsby",
        year=2021,
        url="https://arxiv.org/abs/2010.11929",
    ),
)
