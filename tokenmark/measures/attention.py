"""Which kernel of scaled_dot_product_attention a model really runs on, found out by watching one call of it."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode


class _Watch(TorchFunctionMode):
    """Counts the kernels that torch chooses for each call of fused attention."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Note the choice, then do what was asked."""
        del types
        if func is scaled_dot_product_attention:
            choice = SDPBackend(torch._fused_sdp_choice(*args, **(kwargs or {})))
            self.seen[choice.name.lower().removesuffix("_attention").replace("_", "-")] += 1
        return func(*args, **(kwargs or {}))


def kernels(call: Callable[[Tensor], Tensor], images: Tensor) -> dict[str, int]:
    """How many attentions of one call ran on each kernel: `flash`, `efficient`, `cudnn`, `math`; none: written out.

    Torch decides by shapes, types and mask, so this holds for these images alone. Of a compiled call nothing is seen.
    """
    with _Watch() as watch:
        call(images)
    return dict(watch.seen)
