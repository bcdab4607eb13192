"""Visual Word Tokenizer within an image: before the first block, keep the patches whose pixels vary most.

Read from the paper (arXiv 2411.15397, abstract) and accounts of the method; its release, GPL-3.0, was not opened. The
class token and other prefix tokens always stay. A patch's score is the unbiased variance of all its pixel values, over
channels, rows and columns of the normalised image; int(P * keep) patches stay, in the order of the image, positions
being added before. Of equally varied patches the earlier stays.
"""

from dataclasses import dataclass, replace

from torch import Tensor

from reference_impls.layers.pixel_patches import patch_width, pixel_patches
from reference_impls.layers.reduction import Reduction, TokenState, select, with_prefix
from reference_impls.layers.vit_attention import wide
from reference_impls.layers.vit_backbone import Backbone
from reference_impls.layers.vit_driver import reducer
from tokenmark.contracts import BlockTokens, BudgetError, Knob, Paper

VWT = Paper(
    title="Visual-Word Tokenizer: Beyond Fixed Sets of Tokens in Vision Transformers",
    authors="Gee, Li, Sharmanska, Quadrianto",
    year=2025,
    url="https://arxiv.org/abs/2411.15397",
)


@dataclass(frozen=True, slots=True)
class VwtIntraSettings:
    """How many patches enter the first block."""

    keep: float = 0.5
    """Share of the patches that stay; the paper's drop ratio is 1 less it."""


class VariedPatches(Reduction):
    """Drops the flattest patches of every image, once, before the first block."""

    def __init__(self, backbone: Backbone, settings: VwtIntraSettings) -> None:
        kept = int(backbone.patches * settings.keep) if 0 < settings.keep <= 1 else 0
        if kept < 1:
            raise BudgetError(
                f"keep {settings.keep} must lie above 0 and not above 1, and leave one of {backbone.patches} patches"
            )
        tokens = backbone.prefix + kept
        super().__init__(backbone, (BlockTokens(tokens, tokens),) * backbone.depth)
        patch_width(backbone)
        self.kept, self.grid = kept, backbone.grid

    def look_at(self, images: Tensor) -> tuple[Tensor, ...]:
        """The variance of every patch, `(B, P)`."""
        patches = pixel_patches(images, self.grid)
        patches = patches.to(wide(patches))
        # `var` would warn of an empty batch.
        squares = (patches - patches.mean(dim=2, keepdim=True)).square()
        return (squares.sum(dim=2) / (patches.shape[2] - 1),)

    def before_block(self, block: int, state: TokenState) -> TokenState:
        """Keep the most varied patches, in the order of the image."""
        if block > 0:
            return state
        best = state.carried[0].argsort(dim=1, descending=True, stable=True)[:, : self.kept]
        return replace(select(state, with_prefix(best.sort(dim=1).values, self.prefix)), carried=())


METHOD = reducer(
    VariedPatches,
    id="vwt-intra",
    title="Visual Word Tokenizer (intra-image)",
    idea="Before the first block, drop the patches whose pixels vary least.",
    acts="before the first block",
    paper=VWT,
    settings=VwtIntraSettings,
    knob=Knob("keep", "rate"),
)
