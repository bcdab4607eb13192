"""Bipartite soft matching (Bolya et al., "Token Merging: Your ViT But Faster", ICLR 2023, section 3)."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from reference_impls.layers.families.base import Backbone
from reference_impls.layers.precision import without_autocast
from reference_impls.layers.reduction import Matching, Reduction, TokenState, merge
from reference_impls.layers.vit_attention import Attended, wide
from tokenmark.contracts import BlockTokens


def most_merges(tokens: int, prefix: int) -> int:
    """The most tokens that one matching can merge: half of those that are not protected."""
    return max(0, (tokens - prefix) // 2)


def bipartite_soft_matching(metric: Tensor, r: int, prefix: int) -> Matching:
    """Merge each of the `r` most redundant even tokens into its most similar odd token.

    Even tokens (0, 2, ...) propose, odd tokens receive; similarity is the cosine of `metric` `(B, N, D)`. The first
    `prefix` tokens neither propose nor receive. Output order: prefix, the remaining even tokens, the odd tokens, each
    in ascending position. Of equal similarities the earlier position goes first. 0 < r <= `most_merges`.

    Without prefix tokens the release leaves the remaining even tokens in falling similarity. So does this: the order
    says which tokens propose in the next block.
    """
    first_even, first_odd = (prefix + 1) // 2, prefix // 2
    similarity = cosines(metric[:, ::2][:, first_even:], metric[:, 1::2][:, first_odd:])
    batch, evens, odds = similarity.shape
    best, partner = similarity.max(dim=2)
    order = best.argsort(dim=1, descending=True, stable=True)
    merged, stays = order[:, :r], order[:, r:]
    if prefix:
        stays = stays.sort(dim=1).values
    protected = torch.arange(prefix, device=metric.device).expand(batch, -1)
    receivers = torch.arange(odds, device=metric.device).expand(batch, -1)
    return Matching(
        kept=torch.cat((protected, 2 * (first_even + stays), 2 * (first_odd + receivers) + 1), dim=1),
        merged=2 * (first_even + merged),
        into=prefix + evens - r + partner.gather(1, merged),
    )


def cosines(x: Tensor, y: Tensor) -> Tensor:
    """Cosines between tokens `x` `(B, N, C)` and `y` `(B, M, C)`, `(B, N, M)`, for ranking: without gradient.

    Those of similar tokens crowd near 1, where bfloat16 ties all within 0.004: they are float32 or wider.
    """
    x, y = (normalize(each.detach().to(wide(each)), dim=-1) for each in (x, y))
    with without_autocast(x):
        return x @ y.transpose(1, 2)


def every_kth_matching(metric: Tensor, k: int) -> Matching:
    """Merge all tokens but every k-th into the k-th one that is the most similar: N // k are left, a rest is dropped.

    The alternative of ToMe's release that divides the tokens by `k` at once (k = 2: all even into odd tokens);
    similarity is the cosine of `metric` `(B, N, D)`. It protects no prefix tokens. 2 <= k <= N.
    """
    count = metric.shape[1] // k
    groups = torch.arange(count * k, device=metric.device).reshape(count, k).expand(metric.shape[0], -1, -1)
    return _all_into(metric, groups[..., :-1].flatten(1), groups[..., -1])


def random_matching(metric: Tensor, r: int, noise: Tensor) -> Matching:
    """Merge the `r` tokens of the least `noise` `(B, N)` into the most similar of the others, in rising noise.

    The random choice of ToMe's release, a baseline; similarity is the cosine of `metric` `(B, N, D)`. It protects no
    prefix tokens. 0 <= r < N.
    """
    order = noise.argsort(dim=1, stable=True)
    return _all_into(metric, order[:, :r], order[:, r:])


def _all_into(metric: Tensor, merged: Tensor, kept: Tensor) -> Matching:
    """Merge every one of `merged` `(B, r)` into the most similar of `kept` `(B, K)`, the first of equal ones."""
    ends = (metric.gather(1, index[..., None].expand(-1, -1, metric.shape[2])) for index in (merged, kept))
    return Matching(kept=kept, merged=merged, into=cosines(*ends).argmax(dim=2))


def head_mean_keys(keys: Tensor) -> Tensor:
    """ToMe's metric: keys `(B, heads, N, D)` averaged over heads, `(B, N, D)`."""
    return keys.detach().mean(dim=1, dtype=wide(keys))


class KeyMatching(Reduction):
    """Merges after attention, by the bipartite soft matching of head-averaged keys, what the schedule says."""

    def __init__(self, backbone: Backbone, schedule: tuple[BlockTokens, ...]) -> None:
        super().__init__(backbone, schedule)
        self.head_width = backbone.blocks[0].head_width

    def after_attention(self, block: int, state: TokenState, seen: Attended) -> TokenState:
        """Merge what the schedule says."""
        r = self.schedule[block].attention - self.schedule[block].mlp
        if r == 0:
            return state
        return merge(state, bipartite_soft_matching(head_mean_keys(seen.keys), r, self.prefix))

    @property
    def extra_macs(self) -> int:
        """The similarities of every matching."""
        total = 0
        for block in self.schedule:
            if block.mlp < block.attention:
                evens, odds = (block.attention + 1) // 2, block.attention // 2
                total += (evens - (self.prefix + 1) // 2) * (odds - self.prefix // 2) * self.head_width
        return total
