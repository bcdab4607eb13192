"""Whether the calls that are timed give what they must give: before timing, at its end, and on images unseen by it.

A fast call that skips work, or that remembers its answer, is no fast method. Outputs are compared image by image, by
||a - b|| / ||b|| over the class scores. (MLPerf's TEST01 and TEST04 have the same aim.)
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tokenmark.errors import AuditError

Call = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Contender:
    """What is timed, and what its output is compared with."""

    call: Call
    reference: str | Call
    """Another contender's name, or a call that shares no state with the one that is timed."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far outputs may differ and count as the same.

    A kernel that adds in another order moves the last digits; where a method then takes the other of two tokens that
    are nearly alike, one image in many moves further.
    """

    most: float
    """For nine images in ten."""
    each: float
    """For every image."""


TOLERANCES = {torch.float32: Tolerance(1e-3, 5e-2), torch.bfloat16: Tolerance(5e-2, 2e-1)}
"""By the type in which a model runs."""


def check(contenders: Mapping[str, Contender], images: Tensor, tolerance: Tolerance) -> dict[str, Tensor]:
    """Call every contender once on `images` `(B, 3, H, W)` and compare it with its reference; gives the outputs.

    Raises:
        AuditError: a contender's output differs from its reference's; it names both and the difference.
    """
    outputs = {name: contender.call(images) for name, contender in contenders.items()}
    for name, contender in contenders.items():
        if isinstance(contender.reference, str):
            expected, whose = outputs[contender.reference], contender.reference
        else:
            expected, whose = contender.reference(images.clone()), "a fresh, untimed call of the same module"
        _compare(outputs[name], expected, tolerance, f"'{name}' does not give what {whose} gives")
    return outputs


def check_timed(
    contenders: Mapping[str, Contender],
    images: Tensor,
    timed: Mapping[str, Tensor],
    before: Mapping[str, Tensor],
    tolerance: Tolerance,
) -> dict[str, float]:
    """Compare the outputs of timed calls with those `before` timing, then check all anew on other pixels.

    The other pixels (the negative) are written into the same tensor, so that a contender that remembers an answer by
    the tensor, its place or its shape gives an old one. Gives the largest difference of each contender.

    Raises:
        AuditError: as `check`; or timed calls gave something else than the checked one.
    """
    worst = {}
    for name, output in timed.items():
        text = f"'{name}' does not give in a timed call what it gave before timing"
        worst[name] = _compare(output, before[name], tolerance, text)
    kept = images.clone()
    try:
        images.copy_(1 - kept)
        check(contenders, images, tolerance)
    finally:
        images.copy_(kept)
    return worst


def differences(output: Tensor, expected: Tensor) -> Tensor:
    """||a - b|| / ||b|| of every image, float64 `(B,)`, from scores `(B, classes)`; NaN counts as infinitely far."""
    a, b = output.double(), expected.double()
    off = (a - b).norm(dim=1)
    # two outputs of zeros are the same
    share = torch.where(off == 0, off, off / b.norm(dim=1))
    return share.nan_to_num(nan=torch.inf, posinf=torch.inf)


def _compare(output: Tensor, expected: Tensor, tolerance: Tolerance, what: str) -> float:
    """The largest difference over images, if outputs agree."""
    if output.shape != expected.shape:
        raise AuditError(f"{what}: scores of shape {tuple(output.shape)} for {tuple(expected.shape)}")
    share = differences(output, expected).sort().values
    usual = float(share[: len(share) * 9 // 10].amax()) if len(share) > 1 else 0.0
    worst = float(share[-1])
    if not (usual <= tolerance.most and worst <= tolerance.each):
        raise AuditError(
            f"{what}: class scores differ by {worst:.2g} of their length in the worst image,"
            f" {usual:.2g} in nine of ten; {tolerance.each:g} and {tolerance.most:g} are allowed"
        )
    return worst
