"""ToMe for Stable Diffusion: before attention, merge similar tokens into one per grid cell, and undo it behind."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from reference_impls.layers.families.base import Backbone, BlockView
from reference_impls.layers.grid_matching import grid_destinations, grid_matching, sources_of, unmerge
from reference_impls.layers.reduction import Matching, Reduction, TokenState, merge, with_prefix
from reference_impls.layers.vit_attention import Attended, attend
from reference_impls.layers.vit_backbone import AttentionKind
from reference_impls.layers.vit_driver import reducer
from tokenmark.contracts import BlockTokens, BudgetError, Knob, Paper


@dataclass(frozen=True, slots=True)
class TomeSDSettings:
    """How many patches attention is spared, and which it may do without."""

    ratio: float = 0.5
    """Merged in every block, as a fraction of the patches: int(patches * ratio) of them."""
    cell: tuple[int, int] = (2, 2)
    """Rows and columns of a cell, of which one patch is a destination."""
    randomized: bool = True
    """Whether that patch is drawn; otherwise it is the top left one."""
    seed: int = 0
    """Of the draw. It happens once, when the model is built, for every block; the release draws in every call."""


class MergedAttention(Reduction):
    """Attention runs among merged tokens only; its output goes to all that were merged, and the MLP sees all."""

    def __init__(self, backbone: Backbone, settings: TomeSDSettings) -> None:
        r = _merges(backbone, settings)
        super().__init__(backbone, (BlockTokens(backbone.tokens - r, backbone.tokens),) * backbone.depth)
        self.r, self.width = r, backbone.width
        down, across = backbone.grid[0] // settings.cell[0], backbone.grid[1] // settings.cell[1]
        self.products = (backbone.patches - down * across) * down * across
        generator = torch.Generator().manual_seed(settings.seed)
        for block in range(backbone.depth):
            drawn = torch.rand(down, across, generator=generator) if settings.randomized else None
            destinations = grid_destinations(backbone.grid, settings.cell, drawn)
            self.register_buffer(f"destinations{block}", destinations, persistent=False)
            self.register_buffer(f"sources{block}", sources_of(backbone.patches, destinations), persistent=False)

    @property
    def extra_macs(self) -> int:
        """The similarities of sources and destinations in every block."""
        return len(self.schedule) * self.products * self.width if self.r else 0

    def alive(self, state: TokenState) -> Tensor:
        """How many tokens each image has, less those that attention is to be spared."""
        return super().alive(state) - (self.r if state.carried else 0)

    def before_block(self, block: int, state: TokenState) -> TokenState:
        """Match the patches that enter the block."""
        if self.r == 0:
            return state
        sources: Tensor = self.get_buffer(f"sources{block}")
        found = grid_matching(state.x[:, self.prefix :], sources, self.get_buffer(f"destinations{block}"), self.r)
        carried = (with_prefix(found.kept, self.prefix), found.merged + self.prefix, found.into + self.prefix)
        return replace(state, carried=carried)

    def attend(
        self, block: int, view: BlockView, state: TokenState, kind: AttentionKind
    ) -> tuple[TokenState, Attended]:
        """Merge the normed tokens by plain means, run attention, and give its output back to all of them."""
        if not state.carried:
            return super().attend(block, view, state, kind)
        matching = Matching(*state.carried)
        normed = replace(state, x=view.norm1(state.x), size=None, source=None)
        merged = merge(normed, matching)
        out, seen = attend(view.attention, merged.x, merged.looks(block, proportional=False), kind)
        return replace(state, x=state.x + view.residual1(unmerge(out, matching)), carried=()), seen


def _merges(backbone: Backbone, settings: TomeSDSettings) -> int:
    """How many patches are merged in every block.

    Raises:
        BudgetError: a cell that the grid does not hold, or more patches to merge than are no destination.
    """
    (rows, columns), grid = settings.cell, backbone.grid
    if not (1 <= rows <= grid[0] and 1 <= columns <= grid[1]):
        raise BudgetError(f"cell {settings.cell} must fit into the grid of {grid[0]} x {grid[1]} patches")
    sources = backbone.patches - (grid[0] // rows) * (grid[1] // columns)
    if not (0 <= settings.ratio <= 1 and int(backbone.patches * settings.ratio) <= sources):
        raise BudgetError(
            f"ratio {settings.ratio} must be 0 to {sources / backbone.patches:.4g}: with cells of {rows} x {columns}, "
            f"{sources} of {backbone.patches} patches can be merged"
        )
    return int(backbone.patches * settings.ratio)


METHOD = reducer(
    MergedAttention,
    id="tomesd",
    title="ToMe for Stable Diffusion",
    idea="In every block, merge the patches most similar to one of each grid cell for attention alone, and unmerge.",
    acts="every block, around attention",
    paper=Paper(
        title="Token Merging for Fast Stable Diffusion",
        authors="Bolya, Hoffman",
        year=2023,
        url="https://arxiv.org/abs/2303.17604",
    ),
    settings=TomeSDSettings,
    knob=Knob("ratio", (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)),
)
