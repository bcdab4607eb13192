"""DynamicViT as Haurum et al. train it: its predictors, with a small constant added to what they know of the image."""

from reference_impls.layers.predicted_pruning import PredictedPruning
from reference_impls.layers.stages import HAURUM, KEEP_RATE, Stages, haurum_variants
from reference_impls.layers.vit_driver import reducer
from tokenmark.contracts import Layout


class HaurumPredictedPruning(PredictedPruning):
    """DynamicViT's pruning; the release means to keep a division from zero, and adds its 1e-6 to the mean instead."""

    mean_eps = 1e-6


METHOD = reducer(
    HaurumPredictedPruning,
    id="dynamicvit-haurum",
    title="DynamicViT (Haurum et al.)",
    idea="Before three blocks, a learned predictor of every patch and of their mean says which patches to keep.",
    acts="before 3 blocks",
    paper=HAURUM,
    settings=Stages,
    knob=KEEP_RATE,
    trained=True,
    variants=haurum_variants(),
    layout=Layout(renames=((r"^(score_predictor\.)", r"reduction.\1"), (r"^(?!reduction\.)", "model."))),
)
