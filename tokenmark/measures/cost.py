"""Multiply-accumulates of a vision transformer from the token counts of its blocks, and by a counter.

The field prints MACs as "GFLOPs". Counted: patch embedding, the linear layers, both products of attention, the head;
not counted: norms, softmax, biases, activations.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tokenmark.contracts import BlockTokens


@dataclass(frozen=True, slots=True)
class VitSizes:
    """What the formula needs to know of a vision transformer."""

    patches: int
    patch_values: int
    """Numbers in one patch: 3 p^2."""
    width: int
    mlp_width: int
    classes: int
    blocks: int
    prefix: int
    """Class, distillation and register tokens."""

    @classmethod
    def of(cls, model: nn.Module) -> "VitSizes":
        """Read the sizes off a timm vision transformer."""
        parts = dict(model.named_modules())
        weight = parts["patch_embed.proj"].weight
        head = parts["head"]
        return cls(
            patches=int(model.patch_embed.num_patches),  # type: ignore[union-attr, arg-type]
            patch_values=int(weight[0].numel()),
            width=int(model.embed_dim),  # type: ignore[arg-type]
            mlp_width=int(parts["blocks.0.mlp.fc1"].out_features),
            classes=int(getattr(head, "out_features", 0)),
            blocks=len(model.blocks),  # type: ignore[arg-type]
            prefix=int(model.num_prefix_tokens),  # type: ignore[arg-type]
        )


def vit_macs(sizes: VitSizes, schedule: Sequence[BlockTokens]) -> int:
    """MACs of one image: P d_p D + sum over blocks of (4 N D^2 + 2 N^2 D) + 2 N' D M, + D classes.

    N tokens enter attention, N' the MLP of width M.
    """
    d = sizes.width
    attention = sum(4 * block.attention * d * d + 2 * block.attention**2 * d for block in schedule)
    mlp = sum(2 * block.mlp * d * sizes.mlp_width for block in schedule)
    return sizes.patches * sizes.patch_values * d + attention + mlp + d * sizes.classes


def counted_macs(model: Callable[[Tensor], Tensor], image: Tensor) -> int:
    """MACs of one call by torch's counter. Fused attention is not always counted: give a model with eager attention."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image)
    return int(counter.get_total_flops()) // 2
