"""EViT as Haurum et al. train it: its fusion, but with counts of all patches, not of those that are left."""

from reference_impls.layers.stages import HAURUM, KEEP_RATE, Stages, haurum_variants, stage_targets
from reference_impls.layers.vit_backbone import Backbone
from reference_impls.layers.vit_driver import reducer
from reference_impls.reducers.evit import EvitSettings, InattentiveFusion


class StagedFusion(InattentiveFusion):
    """EViT's fusion down to as many patches as Top-K keeps, and the fused token; a later stage may keep or drop it."""

    def __init__(self, backbone: Backbone, settings: Stages) -> None:
        targets = stage_targets(backbone, settings.keep_rate, settings.blocks)
        super().__init__(backbone, EvitSettings(blocks=tuple(targets), counts=tuple(targets.values())))


METHOD = reducer(
    StagedFusion,
    id="evit-haurum",
    title="EViT (Haurum et al.)",
    idea="In three blocks, keep a share of all patches by class attention and fuse the others into one token.",
    acts="3 blocks, after attention",
    paper=HAURUM,
    settings=Stages,
    knob=KEEP_RATE,
    variants=haurum_variants(),
)
