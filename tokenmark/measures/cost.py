"""Multiply-accumulates (MACs) of a classifier, counted by torch: what the formula of its token counts is checked by.

The field prints MACs as "GFLOPs". Counted: convolutions, linear layers, matrix products, attention, distances; not
counted: norms, softmax, biases, activations.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["counted_macs"]


def _distances(x1: Any, x2: Any, *_: Any, **__: Any) -> int:
    """Two flops for every channel of every pair of points, as a product of matrices has."""
    *batch, rows, width = x1
    pairs = rows * x2[-2]
    for size in batch:
        pairs *= size
    return int(2 * pairs * width)


def counted_macs(model: Callable[[Tensor], Tensor], image: Tensor) -> int:
    """MACs of one call by torch's counter. Fused attention is not always counted: give a model with eager attention."""
    mapping = {torch.ops.aten._cdist_forward: _distances, torch.ops.aten._euclidean_dist: _distances}
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        model(image)
    return int(counter.get_total_flops()) // 2
