"""The rules by which releases turn decoded floats into 8-bit images; they differ by up to one grey level."""

from collections.abc import Callable

from torch import Tensor

from tokenmark.protocols.base import Uint8Rule

RULES: dict[Uint8Rule, Callable[[Tensor], Tensor]] = {
    "round": lambda x: (255.0 * x).round(),
    # 127.5 y + 128, cut off, for y = 2 x - 1 in [-1, 1]; 1 would give 255.5
    "half-up": lambda x: (127.5 * (2.0 * x - 1.0) + 128.0).floor(),
    "truncate": lambda x: (255.0 * x).floor(),
}


def quantised(images: Tensor, rule: Uint8Rule) -> Tensor:
    """Images as the measures see them: clamped to [0, 1], and on grey levels k / 255 unless the rule is `none`."""
    images = images.float().clamp(0.0, 1.0)
    return images if rule == "none" else RULES[rule](images) / 255.0
