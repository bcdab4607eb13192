"""ToMe for Stable Diffusion: before attention, merge similar tokens into one per grid cell, and undo it behind."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from reference_impls.layers.families.base import Backbone, BlockView
from reference_impls.layers.grid_matching import grid_destinations, grid_matching, sources_of, unmerge
from reference_impls.layers.reduction import Matching, Reduction, TokenState, merge, with_prefix
from reference_impls.layers.sampler_hook import Merging, Place, Seen, attach
from reference_impls.layers.sampler_merging import SamplerHook, joined, merges_of, merging_ratio, parts_of
from reference_impls.layers.vit_attention import Attended, attend
from reference_impls.layers.vit_backbone import AttentionKind
from reference_impls.layers.vit_driver import reducer
from tokenmark.contracts import BlockTokens, BudgetError, DiffusionReducerMethod, Knob, Paper

RATIOS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)


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


@dataclass(frozen=True, slots=True)
class SamplerSettings:
    """What a sampler's attention is spared, and in which blocks."""

    ratio: float = 0.5
    """Merged in a block, as a fraction of its tokens: int(tokens * ratio) of them."""
    cell: tuple[int, int] = (2, 2)
    """Rows and columns of a cell, of which one token is a destination."""
    randomized: bool = True
    """Whether that token is drawn, in every call of every block; otherwise it is the top left one."""
    max_downsample: int = 1
    """Blocks whose map is more times smaller than the network's finest are left alone."""
    cross_attention: bool = False
    """Whether attention to the text runs on merged tokens too."""
    mlp: bool = False
    """Whether the MLP does."""
    seed: int = 0
    """Of the draw, with each image's own."""

    def __post_init__(self) -> None:
        if min(self.cell) < 1 or self.max_downsample < 1:
            raise BudgetError(f"cell {self.cell} and max_downsample {self.max_downsample} must be 1 or more")
        merging_ratio(self.ratio, 1 / (self.cell[0] * self.cell[1]))


class GridMerging(SamplerHook):
    """In every block, tokens are merged for attention, and its output goes to all that were merged."""

    def __init__(self, settings: SamplerSettings) -> None:
        super().__init__(settings.seed)
        self.settings = settings
        self.parts = parts_of(cross_attention=settings.cross_attention, mlp=settings.mlp)

    def merge(self, x: Tensor, place: Place) -> Merging | None:
        """Match the tokens that enter the block."""
        r, settings = merges_of(self.settings.ratio, place, self.settings.max_downsample), self.settings
        return joined(self.matched(x, place, r, settings.cell, randomized=settings.randomized)) if r else None

    def seen(self, place: Place, step: int, steps: int) -> Seen:
        """The same at every step."""
        del step, steps
        r, cell = merges_of(self.settings.ratio, place, self.settings.max_downsample), self.settings.cell
        left, cells = place.tokens - r, (place.grid[0] // cell[0]) * (place.grid[1] // cell[1])
        return Seen(left, left, (place.tokens - cells) * cells * place.width if r else 0)


def in_sampler(network: nn.Module, settings: SamplerSettings) -> nn.Module:
    """The network with tokens merged around its attention.

    Raises:
        UnsupportedBackboneError: it has no block that is known.
    """
    return attach(network, GridMerging(settings))


_IN_CLASSIFIER = reducer(
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
    knob=Knob("ratio", RATIOS),
)
METHOD = replace(
    _IN_CLASSIFIER,
    in_sampler=DiffusionReducerMethod(
        id=_IN_CLASSIFIER.id,
        title=_IN_CLASSIFIER.title,
        idea=_IN_CLASSIFIER.idea,
        paper=_IN_CLASSIFIER.paper,
        settings=SamplerSettings,
        reduce=in_sampler,
        acts="every block of the finest map, around attention",
        knob=Knob("ratio", RATIOS),
    ),
)
