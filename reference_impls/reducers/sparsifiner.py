"""Sparsifiner: in every block each query attends only to the keys that a low-rank guess of its attention ranks highest.

The release masks a dense attention, and so does this: nothing is saved but the operations that a sparse kernel would
leave out. Token counts stay as they are, and the predictors cost extra.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from reference_impls.layers.families.base import BlockView
from reference_impls.layers.mask_predictor import MaskPredictor, Sparsity, silence
from reference_impls.layers.reduction import Reduction, TokenState
from reference_impls.layers.stages import check_blocks
from reference_impls.layers.vit_attention import Attended, attention_logits, mix, project
from reference_impls.layers.vit_backbone import AttentionKind, Backbone
from reference_impls.layers.vit_driver import reducer
from tokenmark.contracts import BudgetError, Layout, MethodError, Paper, UnsupportedBackboneError


@dataclass(frozen=True, slots=True)
class SparsifinerSettings(Sparsity):
    """How attention is thinned out, and whether patches are put out as well."""

    prune_blocks: tuple[int, ...] = ()
    """0-based blocks after which only the patches that the class token attended to most are left; the others become
    zeros, stay in their places, and see and are seen no more."""
    token_keep_rate: tuple[float, ...] = ()
    """Of all patches the share that is left after each of `prune_blocks`: ceil(rate * patches)."""


class SparseAttention(Reduction):
    """Masks the keys of every patch; prefix tokens attend to all.

    Carried: which patches are left `(B, patches)`, then in training every block's approximate and own attention.
    """

    def __init__(self, backbone: Backbone, settings: SparsifinerSettings) -> None:
        super().__init__(backbone, backbone.unreduced())
        rates, left, seen = _rates(backbone, settings), _left(backbone, settings), backbone.tokens
        predictors = []
        for block, (view, rate) in enumerate(zip(backbone.blocks, rates, strict=True)):
            budget = min(math.ceil(rate * backbone.tokens), seen)  # the release counts only patches once some are out
            predictors.append(MaskPredictor(backbone.tokens, backbone.prefix, view.head_width, budget, settings))
            seen = left.get(block, seen)
        self.predictors = nn.ModuleList(predictors)
        self.left, self.may_be_empty = left, settings.score_above is not None
        self.heads = [view.cost.pairs // (2 * view.head_width) for view in backbone.blocks]
        self.reconstructs = False
        """Set it in the first phase of training: attention is whole then, and nothing is cut off the predictions."""
        self.memory: tuple[Tensor, ...] = ()
        """Of the last training pass every block's approximate and own attention, by turns."""

    @property
    def extra_macs(self) -> int:
        """The predictors: narrow queries and keys, the coefficients, and what is made of the basis."""
        total = 0
        for block, heads in enumerate(self.heads):
            predictor = self._predictor(block)
            (tokens, rows), (narrow, width) = predictor.proj_n.shape, predictor.proj_c_q.weight.shape
            coefficients = narrow * tokens * rows + (tokens - self.prefix) * narrow * rows
            total += heads * (2 * tokens * width * narrow + coefficients + (tokens - self.prefix) * rows * tokens)
        return total

    def before_block(self, block: int, state: TokenState) -> TokenState:
        """At first all patches are there."""
        if block:
            return state
        return replace(state, carried=(torch.ones_like(state.x[:, self.prefix :, 0], dtype=torch.bool),))

    def attend(
        self, block: int, view: BlockView, state: TokenState, kind: AttentionKind
    ) -> tuple[TokenState, Attended]:
        """Run the attention of `block` under its predicted mask."""
        attention, x, looks = view.attention, view.norm1(state.x), state.looks(block, proportional=False)
        (q, k, v), bias, carried = project(attention, x, looks), looks.bias, state.carried
        whole = self.training and self.reconstructs
        alive = None if whole or not any(pruned < block for pruned in self.left) else carried[0]
        if alive is not None:
            q, k, v = silence(q, alive), silence(k, alive), silence(v, alive)
        predicted = self._predictor(block)(q, k, alive, whole=whole)
        if self.training:
            own = attention_logits(q, k, attention.scale, None, bias).softmax(dim=-1)
            carried = (*carried, predicted.attention, own)
        empty = ~predicted.mask.any(dim=-1, keepdim=True) if self.may_be_empty else None
        if not whole:
            seen = predicted.mask if empty is None else predicted.mask | empty
            barred = torch.where(seen, 0.0, -torch.inf).to(q.dtype)
            bias = barred if bias is None else bias + barred
        mixed, rows = mix(attention, (q, k, v), None, bias, kind)
        if empty is not None and not whole:
            mixed = torch.where(empty, 0.0, mixed)
        out = state.x + view.residual1(attention.join(mixed, x))
        return replace(state, x=out, carried=carried), Attended(q, k, v, attention.scale, None, rows, bias)

    def after_attention(self, block: int, state: TokenState, seen: Attended) -> TokenState:
        """Say which patches are left: those that the class token attends to most, averaged over heads."""
        if block not in self.left or (self.training and self.reconstructs):
            return state
        alive, *memory = state.carried
        score = seen.class_row().mean(dim=1)[:, self.prefix :].masked_fill(~alive, -torch.inf)
        best = score.argsort(dim=1, descending=True, stable=True)[:, : self.left[block]]
        return replace(state, carried=(torch.zeros_like(alive).scatter(1, best, True), *memory))

    def after_block(self, block: int, state: TokenState) -> TokenState:
        """Put out the patches that are not left."""
        if not any(pruned <= block for pruned in self.left):
            return state
        alive = torch.cat((state.carried[0].new_ones(state.x.shape[0], self.prefix), state.carried[0]), dim=1)
        source = None if state.source is None else torch.where(alive, state.source, -1)
        return replace(state, x=torch.where(alive[..., None], state.x, 0.0), source=source)

    def head(self, backbone: Backbone, state: TokenState) -> Tensor:
        """The model's output; remembers what the predictors learn from in a training pass."""
        if self.training:
            self.memory = state.carried[1:]
        return super().head(backbone, state)

    def reconstruction_loss(self, teacher: Sequence[Tensor] | None = None) -> Tensor:
        """Squared error of the approximate attention in the last training pass, summed, and averaged over blocks.

        `teacher`: for every block the attention to learn, `(B, heads, N, N)`, which gets no gradient; None: the
        model's own, which does (the release's self-distillation). The release weighs it by 0.01 for 5 epochs in which
        `reconstructs` is set; then it trains the model without it, by `logit_distillation` and `token_distillation`
        (`reference_impls.layers.distillation`), each weighed by 0.5.

        Raises:
            MethodError: there was no training pass, or the teacher has another number of blocks.
        """
        guesses, own = self.memory[::2], self.memory[1::2]
        if not guesses:
            raise MethodError("the reconstruction loss is of a training pass: call the model in training mode first")
        if teacher is not None and len(teacher) != len(guesses):
            raise MethodError(f"the teacher has {len(teacher)} blocks, this model {len(guesses)}")
        wanted = own if teacher is None else [rows.detach() for rows in teacher]
        pairs = zip(guesses, wanted, strict=True)
        return torch.stack([(guess - rows[:, :, self.prefix :]).square().sum() for guess, rows in pairs]).mean()

    def _predictor(self, block: int) -> MaskPredictor:
        found = self.predictors[block]
        assert isinstance(found, MaskPredictor)  # noqa: S101  for the type
        return found


def _rates(backbone: Backbone, settings: SparsifinerSettings) -> tuple[float, ...]:
    """The share of keys that a query sees in every block.

    Raises:
        BudgetError: shares outside (0, 1] or not one for each block, or factors that leave no basis or no channel.
    """
    rates = settings.attn_keep_rate
    rates = rates if isinstance(rates, tuple) else (rates,) * backbone.depth
    if len(rates) != backbone.depth or not all(0 < rate <= 1 for rate in rates):
        raise BudgetError(
            f"attn_keep_rate {settings.attn_keep_rate} must be above 0 and not above 1, one for all"
            f" or for each of {backbone.depth} blocks"
        )
    narrowest = min(view.head_width for view in backbone.blocks)
    if not (1 <= settings.reduce_n <= backbone.tokens and 1 <= settings.reduce_c <= narrowest):
        raise BudgetError(
            f"reduce_n {settings.reduce_n} must be 1 to {backbone.tokens} (tokens), and reduce_c {settings.reduce_c}"
            f" 1 to {narrowest} (width of a head)"
        )
    rows = backbone.tokens // settings.reduce_n
    if settings.basis_top is not None and not 1 <= settings.basis_top <= rows:
        raise BudgetError(f"basis_top {settings.basis_top} must be 1 to {rows}, the rows of the basis")
    return rates


def _left(backbone: Backbone, settings: SparsifinerSettings) -> dict[int, int]:
    """How many patches are left after each pruning block.

    Raises:
        BudgetError: shares outside (0, 1], that rise, or are not one for each block.
        UnsupportedBackboneError: there is no class token to ask.
    """
    blocks, rates = settings.prune_blocks, settings.token_keep_rate
    if not blocks and not rates:
        return {}
    check_blocks(backbone, blocks)
    falling = list(rates) == sorted(rates, reverse=True)
    if len(rates) != len(blocks) or not falling or not all(0 < rate <= 1 for rate in rates):
        raise BudgetError(f"token_keep_rate {rates} must fall from 1 to above 0, one for each of blocks {blocks}")
    if not backbone.has_class_token:
        raise UnsupportedBackboneError("prune_blocks asks the class token's attention: this model has no class token")
    return {block: math.ceil(rate * backbone.patches) for block, rate in zip(blocks, rates, strict=True)}


METHOD = reducer(
    SparseAttention,
    id="sparsifiner",
    title="Sparsifiner",
    idea="In every block, each query attends only to the keys that a low-rank guess of its attention ranks highest.",
    acts="every block, inside attention (dense, masked)",
    paper=Paper(
        title="Sparsifiner: Learning Sparse Instance-Dependent Attention for Efficient Vision Transformers",
        authors="Wei, Duke, Jiang, Aarabi, Taylor, Shkurti",
        year=2023,
        url="https://arxiv.org/abs/2303.13755",
    ),
    settings=SparsifinerSettings,
    trained=True,
    layout=Layout(
        renames=(
            (r"^blocks\.(\d+)\.attn\.mask_predictor\.", r"reduction.predictors.\1."),
            (r"^(?!reduction\.)", "model."),
        )
    ),
)
