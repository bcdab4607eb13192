"""Strided: in three blocks, keep patches spread evenly over the image: the baseline that looks at no image.

Patches go in the order of a Bayer matrix (the ordered dither of half-toning), so that any first few of them are spread
as evenly over the grid as can be: a quarter of the patches is every second one of every second row, half of them a
checkerboard. What a later stage keeps is a part of what the one before it kept. Fixed patterns as a control for
reductions that look are Haurum et al.'s; theirs are rings around the centre, these are even.
"""

import torch
from torch import Tensor

from reference_impls.layers.reduction import TokenState, select, with_prefix
from reference_impls.layers.stages import HAURUM, KEEP_RATE, StagedReduction, Stages
from reference_impls.layers.vit_attention import Attended
from reference_impls.layers.vit_backbone import Backbone
from reference_impls.layers.vit_driver import reducer


class Strided(StagedReduction):
    """Keeps the same evenly spread positions of every image. It acts where Top-K acts, so that the two cost the same.

    It starts from all patches in their order on the grid.
    """

    def __init__(self, backbone: Backbone, settings: Stages) -> None:
        super().__init__(backbone, settings)
        order = spread_order(backbone.grid)
        present = list(range(backbone.patches))
        for block in settings.blocks:
            left = set(order[: self.schedule[block].mlp - backbone.prefix])
            index = torch.tensor([[place for place, patch in enumerate(present) if patch in left]])
            # A buffer follows the model to its device; not saved, as the state dict holds the model's own keys only.
            self.register_buffer(f"kept{block}", with_prefix(index, backbone.prefix), persistent=False)
            present = sorted(left)

    def after_attention(self, block: int, state: TokenState, seen: Attended) -> TokenState:
        """Keep the stage's positions, in their order."""
        del seen
        if not self.reduces_in(block):
            return state
        kept: Tensor = self.get_buffer(f"kept{block}")
        return select(state, kept.expand(state.x.shape[0], -1))


def spread_order(grid: tuple[int, int]) -> list[int]:
    """The patches of a grid (counted row by row) in an order whose first k are evenly spread, for every k.

    That is the order of a Bayer matrix of the next power of two, of which the grid is the upper left part: the lowest
    bits of row and column are the first to tell two patches apart, in the order (0, 0), (1, 1), (0, 1), (1, 0).
    """
    rows, columns = grid
    bits = max(rows - 1, columns - 1).bit_length()

    def threshold(row: int, column: int) -> int:
        value = 0
        for bit in range(bits):
            down, right = row >> bit & 1, column >> bit & 1
            value = 4 * value + (2 * (down ^ right) | down)
        return value

    return sorted(range(rows * columns), key=lambda patch: threshold(*divmod(patch, columns)))


METHOD = reducer(
    Strided,
    id="strided",
    title="Strided",
    idea="In three blocks, keep patches spread evenly over the grid, the same of every image: a baseline of no score.",
    acts="3 blocks, after attention",
    paper=HAURUM,
    settings=Stages,
    knob=KEEP_RATE,
)
