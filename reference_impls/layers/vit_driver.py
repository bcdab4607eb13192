"""The one driver of all reducers: runs a timm vision transformer piece by piece and lets a reduction act between."""

from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from reference_impls.layers.reduction import Reduction, TokenState
from reference_impls.layers.vit_attention import attend
from reference_impls.layers.vit_backbone import AttentionKind, Backbone
from tokenmark.contracts import BlockTokens, MethodError


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

    Holds the model's own submodules (keys `model.*`), and leaves the model itself as it was. With a `Reduction` that
    does nothing the logits are the model's own.
    """

    def __init__(self, backbone: Backbone, reduction: Reduction, attention: AttentionKind = "fused") -> None:
        super().__init__()
        self.model = backbone.vit
        self.reduction = reduction
        self._backbone = backbone
        self._attention = attention
        self.training = backbone.vit.training

    @property
    def schedule(self) -> tuple[BlockTokens, ...]:
        """Token counts of every block, known before anything runs."""
        return self.reduction.schedule

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(B, classes)` of images `(B, channels, H, W)`, normalised as the model wants them.

        Raises:
            MethodError: the images are not of the size that the schedule was made for.
        """
        state = self._embed(images)
        for block in range(self._backbone.depth):
            state = self._run_block(block, state)
        return self._head(state)

    def trace(self, images: Tensor) -> Trace:
        """The same pass, with the tokens after every block and where each original token went."""
        state = self._embed(images)
        batch, count = state.x.shape[:2]
        state = replace(state, source=torch.arange(count, device=images.device).expand(batch, -1))
        states = []
        for block in range(self._backbone.depth):
            state = self._run_block(block, state)
            states.append(state)
        return Trace(
            logits=self._head(state),
            tokens=tuple(each.x for each in states),
            sources=tuple(each.source for each in states if each.source is not None),
            size=state.x.new_ones(state.x.shape[:2]) if state.size is None else state.size,
        )

    def _embed(self, images: Tensor) -> TokenState:
        expected = self._backbone.image_shape
        if images.ndim != 4 or tuple(images.shape[1:]) != expected:
            raise MethodError(
                f"images are {tuple(images.shape)}, this model takes (batch, {', '.join(map(str, expected))}): "
                "resize them, or set the model's input size before it is reduced"
            )
        vit = self.model
        return TokenState(vit.norm_pre(vit._pos_embed(vit.patch_embed(images))))

    def _run_block(self, index: int, state: TokenState) -> TokenState:
        """One pre-norm block; the driver's counterpart of timm's `Block.forward`."""
        block: Any = self.model.blocks[index]  # its parts have the types that `inspect_backbone` found
        reduction = self.reduction
        state = reduction.before_block(index, state)
        size = state.size if reduction.proportional else None
        kind = "eager" if reduction.needs_rows(index) else self._attention
        out, seen = attend(block.attn, block.norm1(state.x), size, kind)
        state = replace(state, x=state.x + block.drop_path1(block.ls1(out)))
        state = reduction.after_attention(index, state, seen)
        return replace(state, x=state.x + block.drop_path2(block.ls2(block.mlp(block.norm2(state.x)))))

    def _head(self, state: TokenState) -> Tensor:
        """Norm, pooling and classifier; a mean over merged tokens weighs them by size, as ToMe's release does."""
        vit, state = self.model, self.reduction.before_head(state)
        x = vit.norm(state.x)
        if state.size is None or vit.global_pool != "avg":
            return vit.forward_head(x)
        start = 0 if vit.pool_include_prefix else vit.num_prefix_tokens
        size = state.size[:, start:, None]
        mean = ((x[:, start:] * size).sum(dim=1) / size.sum(dim=1)).to(x.dtype)
        return cast(Tensor, vit.head(vit.head_drop(vit.fc_norm(mean))))
