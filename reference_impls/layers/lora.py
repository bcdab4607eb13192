"""Low-rank adaptation of convolutions (LoRA, arXiv 2106.09685), kept beside the weights that it adapts."""

from collections.abc import Collection
from typing import Any

from torch import Tensor, nn

__all__ = ["LoraConv2d", "adapt_convolutions"]


class LoraConv2d(nn.Conv2d):
    """A convolution plus a second one of `rank` channels and 1x1 back to its width; no factor between them.

    Args:
        conv: The convolution that is adapted; its parameters are taken over, not copied.
        rank: Channels between the two added convolutions.
    """

    def __init__(self, conv: nn.Conv2d, rank: int) -> None:
        options: dict[str, Any] = {"kernel_size": conv.kernel_size, "stride": conv.stride, "padding": conv.padding}
        super().__init__(conv.in_channels, conv.out_channels, **options, bias=conv.bias is not None)
        self.weight, self.bias = conv.weight, conv.bias
        down = nn.Conv2d(conv.in_channels, rank, **options, bias=False)
        up = nn.Conv2d(rank, conv.out_channels, 1, bias=False)
        nn.init.normal_(down.weight, std=1.0 / rank)
        nn.init.zeros_(up.weight)
        self.lora_layer = nn.ModuleDict({"down": down, "up": up})

    def forward(self, x: Tensor) -> Tensor:
        """`(B, in_channels, H, W)` to what the adapted convolution gives."""
        added: Tensor = self.lora_layer["up"](self.lora_layer["down"](x))
        return super().forward(x) + added


def adapt_convolutions(module: nn.Module, rank: int, parts: Collection[str]) -> None:
    """Give every 2-D convolution inside `module` whose dotted name holds one of `parts` a LoRA of `rank`."""
    for name, conv in list(module.named_modules()):
        if isinstance(conv, nn.Conv2d) and any(part in name for part in parts):
            parent, _, child = name.rpartition(".")
            setattr(module.get_submodule(parent), child, LoraConv2d(conv, rank))
