"""Average pooling: before the first block, average the patch tokens over a coarser grid: what a smaller image would do.

Patches are averaged with their positions already added, by adaptive average pooling, so that any grid that is not
finer will do: windows overlap by a patch where the sides do not divide. A token made so has the place of the middle
patch of its window, where blocks look at places (rotary or relative positions), and counts as one token: sizes enter
neither attention nor the mean before a head, as windows are as good as equal. DeCo (read: its abstract and summary)
does the same behind the encoder of a vision-language system, in place of a learned projector; here it is a control.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from reference_impls.layers.reduction import Reduction, TokenState, remake
from reference_impls.layers.stages import KEEP_RATE
from reference_impls.layers.vit_attention import wide
from reference_impls.layers.vit_backbone import Backbone
from reference_impls.layers.vit_driver import reducer
from tokenmark.contracts import BlockTokens, BudgetError, Paper


@dataclass(frozen=True, slots=True)
class AveragePoolSettings:
    """The coarser grid, by a rate or by its sides."""

    keep_rate: float = 0.25
    """Each side shrinks by the square root of this, down to whole patches: no more than this share of them stays."""
    grid: tuple[int, int] | None = None
    """Rows and columns, in place of `keep_rate`."""


class AveragePool(Reduction):
    """Pools the patches once, before block 0."""

    def __init__(self, backbone: Backbone, settings: AveragePoolSettings) -> None:
        self.from_grid, self.to_grid = backbone.grid, coarser(backbone.grid, settings)
        tokens = backbone.prefix + math.prod(self.to_grid)
        super().__init__(backbone, (BlockTokens(tokens, tokens),) * backbone.depth)
        middle, window = maps(self.from_grid, self.to_grid)
        prefix = torch.arange(self.prefix)
        self.register_buffer("middle", torch.cat((prefix, middle + self.prefix))[None], persistent=False)
        self.register_buffer("window", torch.cat((prefix, window + self.prefix))[None], persistent=False)

    def before_block(self, block: int, state: TokenState) -> TokenState:
        """Pool, before the first block."""
        if block > 0 or self.from_grid == self.to_grid:
            return state
        first, patches = state.x[:, : self.prefix], state.x[:, self.prefix :].to(wide(state.x))
        pooled = adaptive_avg_pool2d(patches.transpose(1, 2).unflatten(2, self.from_grid), self.to_grid)
        pooled = pooled.flatten(2).transpose(1, 2).to(state.x.dtype)
        batch = state.x.shape[0]
        made = remake(state, torch.cat((first, pooled), dim=1), self.get_buffer("window").expand(batch, -1))
        return replace(made, position=None if state.places is None else self.get_buffer("middle").expand(batch, -1))


def coarser(grid: tuple[int, int], settings: AveragePoolSettings) -> tuple[int, int]:
    """The grid that patches are pooled to.

    Raises:
        BudgetError: a rate outside (0, 1], a finer grid than the model's, or none.
    """
    rows, columns = grid
    if settings.grid is not None:
        if not (1 <= settings.grid[0] <= rows and 1 <= settings.grid[1] <= columns):
            raise BudgetError(f"grid {settings.grid} must be from 1 by 1 to {rows} by {columns}, this model's patches")
        return settings.grid
    if not 0 < settings.keep_rate <= 1:
        raise BudgetError(f"keep_rate {settings.keep_rate} must lie above 0 and not above 1")
    # A hair is added as 0.25 ** 0.5 * 14 must not fall short of 7.
    kept = tuple(int(side * math.sqrt(settings.keep_rate) + 1e-9) for side in grid)
    if min(kept) < 1:
        raise BudgetError(
            f"keep_rate {settings.keep_rate} leaves {kept[0]} by {kept[1]} of {rows} by {columns} patches: the least"
            f" that fits is {1 / min(grid) ** 2:.4f}"
        )
    return kept[0], kept[1]


def maps(grid: tuple[int, int], to: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The middle patch of each pooled token's window, `(to,)`, and a token that each patch is pooled into, `(grid,)`.

    Window i of n over m patches is from floor(i m / n) to ceil((i + 1) m / n), as adaptive pooling has it. Of two
    middle patches, and of two windows that overlap, the earlier.
    """
    middles, windows = [], []
    for count, wanted in zip(grid, to, strict=True):
        index = torch.arange(wanted)
        start, end = index * count // wanted, -(-(index + 1) * count // wanted)
        middles.append((start + end - 1) // 2)
        windows.append(torch.arange(count) * wanted // count)
    middle = middles[0][:, None] * grid[1] + middles[1]
    window = windows[0][:, None] * to[1] + windows[1]
    return middle.flatten(), window.flatten()


METHOD = reducer(
    AveragePool,
    id="average-pool",
    title="Average pooling",
    idea="Before the first block, average the patch tokens over a coarser grid, whatever they show.",
    acts="before block 0",
    paper=Paper(
        title="DeCo: Decoupling Token Compression from Semantic Abstraction in Multimodal Large Language Models",
        authors="Yao, Li, Ren, Wang, Liu, Sun, Hou",
        year=2024,
        url="https://arxiv.org/abs/2405.20985",
    ),
    settings=AveragePoolSettings,
    knob=KEEP_RATE,
)
