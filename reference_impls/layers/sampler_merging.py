"""What the reducers of diffusion samplers share: noise of every image's own, merging to be undone, and the cost."""

import hashlib

import torch
from torch import Tensor

from reference_impls.layers.grid_matching import grid_destinations, grid_matching, sources_of, unmerge
from reference_impls.layers.noise import Draws
from reference_impls.layers.reduction import Matching, TokenState, merge, merge_clusters, take
from reference_impls.layers.sampler_hook import Call, Merging, Part, Place, Seen
from tokenmark.contracts import BudgetError

__all__ = ["SamplerHook", "clustered", "joined", "merges_of", "merging_ratio", "parts_of"]


class SamplerHook:
    """A hook that does nothing, to be overridden; it remembers the call, and draws noise for its images.

    Noise of an image depends on its own seed and on the reducer's, and on nothing beside it: not on the batch, nor on
    the half. The sampler's own noise is left alone, so that the unreduced sampler is the control.
    """

    parts: frozenset[Part] = frozenset({"attention"})
    call: Call

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._draws: Draws | None = None

    def begin(self, call: Call) -> None:
        """Remember the call; with the first of a run, the images' generators begin anew."""
        self.call = call
        if call.step == 0:
            own = [_derived(seed, self._seed) for seed in call.seeds]
            self._draws = Draws([torch.Generator().manual_seed(each) for each in own], call.device)

    def merge(self, x: Tensor, place: Place) -> Merging | None:
        """Nothing is merged."""
        del x, place
        return None

    def finish(self, output: Tensor) -> Tensor:
        """What the network computed."""
        return output

    def seen(self, place: Place, step: int, steps: int) -> Seen:
        """All tokens."""
        del step, steps
        return Seen(place.tokens, place.tokens)

    def uniform(self, name: str, *shape: int) -> Tensor:
        """Uniform noise `(images, *shape)` in [0, 1)."""
        assert self._draws is not None  # noqa: S101  a run begins at step 0
        return self._draws.uniform(name, self.call.step, *shape)

    def matched(self, x: Tensor, place: Place, r: int, cell: tuple[int, int], *, randomized: bool = True) -> Matching:
        """ToMe for Stable Diffusion's matching of `x` `(B, N, C)`: `r` tokens go, one of every cell stays."""
        down, across = place.grid[0] // cell[0], place.grid[1] // cell[1]
        choice = self.uniform("cells", down, across) if randomized else None
        destinations = grid_destinations(place.grid, cell, choice).to(x.device)
        destinations = self.both(destinations) if randomized else destinations
        return grid_matching(x, sources_of(place.tokens, destinations), destinations, r)

    def both(self, each: Tensor) -> Tensor:
        """What images have, `(images, ...)`, for the halves of the batch."""
        return torch.cat([each] * self.call.halves)


def _derived(seed: int, own: int) -> int:
    """A seed for a reducer's noise, far from the image's own."""
    return int.from_bytes(hashlib.blake2b(f"{own}/{seed}".encode(), digest_size=4).digest())


def parts_of(*, cross_attention: bool, mlp: bool) -> frozenset[Part]:
    """Self-attention, and what else runs on reduced tokens."""
    parts: dict[Part, bool] = {"attention": True, "cross_attention": cross_attention, "mlp": mlp}
    return frozenset(part for part, wanted in parts.items() if wanted)


def merging_ratio(ratio: float, destinations: float) -> None:
    """Refuse to merge more tokens than there are beside destinations, which are such a fraction of them.

    Raises:
        BudgetError: the ratio is not in 0 to 1 - `destinations`.
    """
    if not 0 <= ratio <= 1 - destinations:
        raise BudgetError(f"ratio {ratio} must be 0 to {1 - destinations:.4g}: {destinations:.4g} of all tokens stay")


def merges_of(ratio: float, place: Place, max_downsample: int) -> int:
    """How many tokens of a block are merged: none where its map is more than `max_downsample` times smaller."""
    return int(place.tokens * ratio) if place.smaller <= max_downsample else 0


def joined(matching: Matching, *, mean: bool = True) -> Merging:
    """Merge by the plain mean of those that go together, and copy what was computed to all of them.

    Without `mean` the tokens that are merged are only left out.
    """

    def merged(x: Tensor) -> Tensor:
        return merge(TokenState(x), matching).x if mean else take(x, matching.kept)

    return Merging(merged, lambda x: unmerge(x, matching))


def clustered(labels: Tensor, count: int) -> Merging:
    """Merge the members of each of `count` clusters, `labels` `(B, N)`, into their mean, and copy it back to them."""
    return Merging(lambda x: merge_clusters(TokenState(x), labels, count).x, lambda x: take(x, labels))
