"""The one driver of all reducers: runs a vision transformer piece by piece and lets a reduction act between."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from reference_impls.layers.reduction import Reduction, TokenState
from reference_impls.layers.vit_backbone import AttentionKind, Backbone, inspect_backbone
from tokenmark.contracts import (
    BlockTokens,
    Knob,
    Layout,
    MethodError,
    NoSettings,
    Paper,
    ReducerMethod,
    UnsupportedBackboneError,
    Variant,
    VitCost,
)

__all__ = ["ReducedViT", "Trace", "reducer"]


@dataclass(frozen=True)
class Trace:
    """What became of the tokens of a batch, block by block."""

    logits: Tensor
    """`(B, classes)`."""
    tokens: tuple[Tensor, ...]
    """After each block, `(B, N_i, C)`."""
    sources: tuple[Tensor, ...]
    """After each block, `(B, N_0)` int64: which of its tokens holds each original token; -1 where it was dropped."""
    size: Tensor
    """`(B, N)`, original tokens per final token (prefix tokens count one each)."""


class ReducedViT(nn.Module):
    """A vision transformer whose tokens are reduced on the way; a `ReducedModel`.

    Holds the model's own submodules (keys `model.*`) and the reduction's (`reduction.*`), and leaves the model itself
    as it was. With a `Reduction` that does nothing the logits are the model's own.
    """

    def __init__(self, backbone: Backbone, reduction: Reduction, attention: AttentionKind = "fused") -> None:
        super().__init__()
        self.model = backbone.model
        self.reduction = reduction
        self.backbone = backbone
        self.attention: AttentionKind = attention
        self.training = backbone.model.training

    @property
    def schedule(self) -> tuple[BlockTokens, ...]:
        """Token counts of every block, known before anything runs."""
        return self.reduction.schedule

    @property
    def cost(self) -> VitCost:
        """What the model costs, as a function of token counts."""
        return self.backbone.cost

    @property
    def extra_macs(self) -> int:
        """MACs of one image that the method computes beside the model."""
        return self.reduction.extra_macs

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(B, classes)` of images `(B, channels, H, W)`, normalised as the model wants them.

        Raises:
            MethodError: the images are not of the size that the schedule was made for.
        """
        state = self._embed(images)
        for block in range(self.backbone.depth):
            state = self._run_block(block, state)
        return self.reduction.head(self.backbone, state)

    @property
    def adaptive(self) -> bool:
        """Whether images keep different numbers of tokens; the schedule then promises the most."""
        return self.reduction.adaptive

    def counts(self, images: Tensor) -> Tensor:
        """How many tokens of each image enter every attention and every MLP, `(B, blocks, 2)` int64."""
        state, counts = self._embed(images), list[Tensor]()
        for block in range(self.backbone.depth):
            state = self._run_block(block, state, counts)
        return torch.stack(counts, dim=1).view(-1, self.backbone.depth, 2)

    def trace(self, images: Tensor) -> Trace:
        """The same pass, with the tokens after every block and where each original token went."""
        state = self._embed(images)
        batch, count = state.x.shape[:2]
        state = replace(state, source=torch.arange(count, device=images.device).expand(batch, -1))
        states = []
        for block in range(self.backbone.depth):
            state = self._run_block(block, state)
            states.append(state)
        return Trace(
            logits=self.reduction.head(self.backbone, state),
            tokens=tuple(each.x for each in states),
            sources=tuple(each.source for each in states if each.source is not None),
            size=state.x.new_ones(state.x.shape[:2]) if state.size is None else state.size,
        )

    def _embed(self, images: Tensor) -> TokenState:
        expected = self.backbone.image_shape
        if images.ndim != 4 or tuple(images.shape[1:]) != expected:
            raise MethodError(
                f"images are {tuple(images.shape)}, this model takes (batch, {', '.join(map(str, expected))}): "
                "resize them, or set the model's input size before it is reduced"
            )
        x, places = self.backbone.embed(images)
        return TokenState(x, places=places, carried=self.reduction.look_at(images))

    def _run_block(self, index: int, state: TokenState, counts: list[Tensor] | None = None) -> TokenState:
        """One pre-norm block: attention and its residual, MLP and its residual, and the method's places between.

        `counts` is told how many tokens of each image enter attention, and then MLP.
        """
        view, reduction = self.backbone.blocks[index], self.reduction
        state = reduction.before_block(index, state)
        if counts is not None:
            counts.append(reduction.alive(state))
        state, seen = reduction.attend(index, view, state, self._kind(index))
        state = reduction.after_attention(index, state, seen)
        if counts is not None:
            counts.append(reduction.alive(state))
        state = reduction.feed_forward(index, view, state)
        return reduction.after_block(index, state)

    def _kind(self, block: int) -> AttentionKind:
        return "eager" if self.reduction.needs_rows(block) else self.attention


def reducer(
    reduction: Callable[[Backbone, Any], Reduction],
    *,
    id: str,  # noqa: A002  the field's name
    title: str,
    idea: str,
    acts: str,
    paper: Paper,
    settings: type = NoSettings,
    knob: Knob | None = None,
    trained: bool = False,
    variants: dict[str, Variant] | None = None,
    layout: Layout | None = None,
) -> ReducerMethod:
    """The method of a `Reduction`, a class that is made of a backbone and settings."""

    def build(model: nn.Module, settings: Any, *, attention: AttentionKind = "fused") -> ReducedViT:
        """Reduce the tokens of a vision transformer that the driver serves (see docs/backbones.md).

        Raises:
            UnsupportedBackboneError: the driver does not serve `model`, or it lacks what the method needs.
            BudgetError: the settings ask for what the model cannot give.
        """
        backbone = inspect_backbone(model, attention)
        if getattr(reduction, "needs_class_token", False) and not backbone.has_class_token:
            raise UnsupportedBackboneError(f"{id} asks the class token's attention: this model has no class token")
        sample = next(model.parameters())
        built = reduction(backbone, settings).to(sample.device, sample.dtype)
        if built.makes_tokens and backbone.placed:
            raise UnsupportedBackboneError(
                f"{id} mixes new tokens, and new tokens have no place: this model's blocks look at places (rotary or"
                " relative positions)"
            )
        return ReducedViT(backbone, built.train(model.training), attention)

    return ReducerMethod(
        id=id,
        title=title,
        idea=idea,
        acts=acts,
        paper=paper,
        settings=settings,
        build=build,
        knob=knob,
        trained=trained,
        variants=variants or {},
        reduction=reduction,
        layout=layout or Layout(renames=((r"^", "model."),)),
    )
