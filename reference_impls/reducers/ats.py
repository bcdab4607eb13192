"""ATS: in later blocks, sample patches by inverse transform of their scores, so that every image keeps what it needs.

As its authors release it. Their softmax adds a small constant and their sums run over the rows that fill a batch up, so
that an image's result depends a little on the images beside it; with `packed` it does not.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import dropout

from reference_impls.layers.families.base import BlockView
from reference_impls.layers.padding import (
    Packed,
    PackedAttention,
    head_of_live,
    longest,
    places_after,
    refuse_attention_pooling,
)
from reference_impls.layers.reduction import Reduction, TokenState, select, with_prefix
from reference_impls.layers.stages import check_blocks
from reference_impls.layers.token_predictor import policy_softmax
from reference_impls.layers.vit_attention import Attended, Looks, attend, attention_logits, project, wide
from reference_impls.layers.vit_backbone import AttentionKind, Backbone
from reference_impls.layers.vit_driver import reducer
from tokenmark.contracts import BlockTokens, BudgetError, Knob, Paper


@dataclass(frozen=True, slots=True)
class AtsSettings:
    """Where patches are sampled, how often at most, and what becomes of the rows that fill images up."""

    blocks: tuple[int, ...] = tuple(range(3, 12))
    """0-based blocks that sample."""
    sample_rate: float = 1.0
    """Samples of every block, as a share of the model's own patches; a patch may take several. The release: all."""
    trim: bool = True
    """Whether to cut the rows that no image of the batch needs. Their number then depends on the images, and the host
    must wait for it; without, all rows stay, and most of the saving is lost."""
    packed: bool = False
    """Whether linear layers leave out the rows that fill up, and attention is a plain softmax over an image's own
    tokens: every image is then treated as if it were alone."""


class AdaptiveTokenSampler(Reduction):
    """Scores patches by the class token's attention times the norm of their values (equation 5)."""

    needs_class_token = True
    adaptive = True

    def __init__(self, backbone: Backbone, settings: AtsSettings) -> None:
        check_blocks(backbone, settings.blocks)
        if not 0 < settings.sample_rate <= 1 or int(backbone.patches * settings.sample_rate) < 1:
            raise BudgetError(
                f"sample_rate {settings.sample_rate} of {backbone.patches} patches must be one sample or more, at most"
                " one for each"
            )
        refuse_attention_pooling(backbone, "ats")
        self.samples = int(backbone.patches * settings.sample_rate)
        schedule, patches = [], backbone.patches
        for block in range(backbone.depth):
            left = patches
            if block in settings.blocks:  # the image with the most tokens never keeps its lowest score
                left = min(self.samples, max(1, patches - 1) if settings.trim else patches)
            schedule.append(BlockTokens(attention=backbone.prefix + patches, mlp=backbone.prefix + left))
            patches = left
        super().__init__(backbone, tuple(schedule))
        self.blocks, self.trim, self.packed = settings.blocks, settings.trim, settings.packed

    def alive(self, state: TokenState) -> Tensor:
        """How many tokens of each image are not there to fill up."""
        return state.carried[0].sum(dim=1) if state.carried else super().alive(state)

    def attend(
        self, block: int, view: BlockView, state: TokenState, kind: AttentionKind
    ) -> tuple[TokenState, Attended]:
        """Run the attention of `block` on live tokens: by the release's softmax, in all blocks, or packed."""
        x, looks = view.norm1(state.x), state.looks(block, proportional=False)
        alive = state.carried[0] if state.carried else torch.ones_like(state.x[..., 0], dtype=torch.bool)
        if not self.packed:
            out, seen = self._as_released(block, view, x, looks, alive)
        elif not state.carried:
            out, seen = attend(view.attention, x, looks, kind)
        else:
            barred = torch.zeros_like(alive, dtype=x.dtype).masked_fill(~alive, -torch.inf)[:, None, None]
            looks = replace(looks, bias=barred if looks.bias is None else looks.bias + barred)
            packed = Packed(state.carried[1], *alive.shape)
            out, seen = attend(PackedAttention(view.attention, packed), x, looks, kind)
        return replace(state, x=(state.x + view.residual1(out)) * alive[..., None]), seen

    def after_attention(self, block: int, state: TokenState, seen: Attended) -> TokenState:
        """Keep the sampled patches, in rising score."""
        if block not in self.blocks:
            return state
        values = seen.values.transpose(1, 2).flatten(2)
        score = seen.class_row().sum(dim=1) * values.to(wide(values)).norm(dim=-1)
        dead = ~state.carried[0][:, self.prefix :] if state.carried else None
        index, alive = sampled(score[:, self.prefix :].detach(), self.samples, dead, alone=self.packed)
        index = with_prefix(index, self.prefix)
        alive = torch.cat((torch.ones_like(alive[:, :1]).expand(-1, self.prefix), alive), dim=1)
        rows = longest(alive, self.prefix + 1) if self.trim else self.schedule[block].mlp
        index, alive = index[:, :rows], alive[:, :rows]
        goes_to = None if state.source is None else places_after(index, alive, state.x.shape[1])
        kept = select(state, index, goes_to)
        carried = (alive, Packed.of(alive).rows) if self.packed else (alive,)
        return replace(kept, x=kept.x * alive[..., None], carried=carried)

    def feed_forward(self, block: int, view: BlockView, state: TokenState) -> TokenState:
        """Run the MLP of `block`; rows that fill up stay zero."""
        if not state.carried:
            return super().feed_forward(block, view, state)
        alive, x = state.carried[0], state.x
        if self.packed:
            packed = Packed(state.carried[1], *alive.shape)
            return replace(state, x=x + view.residual2(packed.put(view.mlp(view.norm2(packed.take(x))))))
        return replace(state, x=super().feed_forward(block, view, state).x * alive[..., None])

    def head(self, backbone: Backbone, state: TokenState) -> Tensor:
        """The model's output, of the live tokens alone."""
        return head_of_live(backbone, state, state.carried[0]) if state.carried else super().head(backbone, state)

    def _as_released(
        self, block: int, view: BlockView, x: Tensor, looks: Looks, alive: Tensor
    ) -> tuple[Tensor, Attended]:
        """Attention by the softmax that adds a constant; blocks that sample know nothing of dead tokens.

        The release leaves out the rows of dropped tokens before the last linear layer, with the same result.
        """
        attention = view.attention
        q, k, v = project(attention, x, looks)
        if block in self.blocks:
            q, k, v = (each * alive[:, None, :, None] for each in (q, k, v))
        logits = attention_logits(q, k, attention.scale, None, looks.bias)
        rows = policy_softmax(logits, alive.to(wide(logits)))
        drop = attention.dropout
        out = attention.join(dropout(rows.to(v.dtype), drop, drop > 0.0) @ v, x)
        return out, Attended(q, k, v, attention.scale, None, rows, looks.bias)


def sampled(score: Tensor, samples: int, dead: Tensor | None, *, alone: bool) -> tuple[Tensor, Tensor]:
    """The patches that are sampled by their `score` `(B, N)`: `(B, N)` in rising score, and which of these are meant.

    The running sum of the rising scores is stretched to end at 1 and begin at 0, or where rows are `dead` (`(B, N)`) at
    the share of the lowest live score, unless each image counts `alone`. Even steps from its least value above 0 to 1
    each take the patch whose running sum is nearest, of equal ones the first. So the lowest score of an image without
    dead rows is never taken. Of two patches the release may lose both; here the higher score stays, as does one patch.
    """
    score = score if dead is None else score.masked_fill(dead, 0.0)
    order = score.argsort(dim=1, stable=True)
    if dead is not None:  # dead ones first, so that a live patch of score 0 is not taken for one
        order = order.gather(1, (~dead).gather(1, order).int().argsort(dim=1, stable=True))
    share = score.gather(1, order)
    running = (share / share.sum(dim=1, keepdim=True).clamp(min=torch.finfo(score.dtype).tiny)).cumsum(dim=1)
    last, first = running[:, -1:], running
    if dead is not None and alone:
        first = running.masked_fill(dead.gather(1, order), torch.inf)
    first = first.amin(dim=1, keepdim=True)
    running = torch.where(last > first, (running - first) / (last - first), (running >= last).to(score.dtype))
    least = running.masked_fill(running <= 0, torch.inf).amin(dim=1, keepdim=True)
    steps = torch.arange(samples, device=score.device).to(score.dtype) / max(1, samples - 1)
    nearest = (running[:, :, None] - (least + (1 - least) * steps)[:, None]).abs().argmin(dim=1)
    taken = torch.zeros_like(score, dtype=torch.bool).scatter(1, nearest, value=True)
    places = (~taken).int().argsort(dim=1, stable=True)
    return order.gather(1, places), taken.gather(1, places)


METHOD = reducer(
    AdaptiveTokenSampler,
    id="ats",
    title="ATS",
    idea="In later blocks, sample patches by inverse transform of class attention times value norm; images differ.",
    acts="9 blocks, after attention",
    paper=Paper(
        title="Adaptive Token Sampling For Efficient Vision Transformers",
        authors="Fayyaz, Koohpayegani, Jafari, Sengupta, Joze, Sommerlade, Pirsiavash, Gall",
        year=2022,
        url="https://arxiv.org/abs/2111.15667",
    ),
    settings=AtsSettings,
    knob=Knob("sample_rate", "rate"),
)
