"""Sampling from a diffusion model that was trained in many small steps, in fewer of them.

Ancestral DDPM sampling (arXiv 2006.11239, algorithm 2) with a learned variance (Improved DDPM, arXiv 2102.09672,
eq. 15) over a subset of the training steps (section 4 there), as DiT (arXiv 2212.09748) and its heirs sample.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, pairwise, repeat
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reference_impls.layers.precision import at_least_float32
from tokenmark.contracts import MethodError

__all__ = ["DenoisingModel", "RespacedDiffusion", "guide", "linear_betas", "respaced_steps"]

Table: TypeAlias = npt.NDArray[Any]

DenoisingModel: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Noisy latents `(B, C, ...)` and training steps `(B,)` to noise and then variance, `(B, 2C, ...)`."""


def linear_betas(steps: int) -> Table:
    """Variances `(steps,)`, float64, rising evenly: from 0.0001 to 0.02 at 1000 steps (DDPM, section 4)."""
    return np.linspace(0.1 / steps, 20.0 / steps, steps, dtype=np.float64)


def respaced_steps(steps: int, spacing: str | int) -> list[int]:
    """Which of the training steps 0 to `steps - 1` are taken, in rising order (Improved DDPM, section 4).

    250: so many, evenly spread, the first and the last among them. "10,15": the training steps in as many equal
    parts, and so many of each part. "ddim50": every n-th from 0 on, as DDIM takes them.

    Raises MethodError where there are no such steps.
    """
    counts = [_number(part, spacing) for part in str(spacing).removeprefix("ddim").split(",")]
    if str(spacing).startswith("ddim"):
        taken = (range(0, steps, stride) for stride in range(1, steps + 1))
        for found in taken:
            if [len(found)] == counts:
                return list(found)
        raise MethodError(f"no stride takes '{spacing}' of {steps} steps")
    size, rest = divmod(steps, len(counts))
    bounds = [size * part + min(part, rest) for part in range(len(counts) + 1)]
    return [step for count, part in zip(counts, pairwise(bounds), strict=True) for step in _spread(count, *part)]


def _number(text: str, spacing: str | int) -> int:
    if not text.strip().isdecimal():
        raise MethodError(f"steps are asked for as 250, '10,15,20' or 'ddim50', got '{spacing}'")
    return int(text)


def _spread(count: int, start: int, end: int) -> list[int]:
    if not 1 <= count <= end - start:
        raise MethodError(f"{count} steps cannot be taken of {end - start}")
    stride = (end - start - 1) / (count - 1) if count > 1 else 1.0
    # Added up, not multiplied: so the releases round the same halves the same way.
    return [start + round(place) for place in accumulate(repeat(stride, count - 1), initial=0.0)]


def guide(conditional: Tensor, unconditional: Tensor, scale: float, channels: int) -> Tensor:
    """Classifier-free guidance (arXiv 2207.12598) of the first `channels`; the others stay the conditional's.

    `scale` 1 is none: unconditional + scale * (conditional - unconditional).
    """
    base, told = unconditional[:, :channels], conditional[:, :channels]
    return torch.cat([base + scale * (told - base), conditional[:, channels:]], dim=1)


class RespacedDiffusion:
    """The reverse process over some of the training steps, its float64 tables made once; a checkpoint has none of it.

    Args:
        betas: Variances of the training steps, `(T,)`.
        steps: The training steps that are taken, rising, as `respaced_steps` gives them.
    """

    def __init__(self, betas: Table, steps: Sequence[int]) -> None:
        kept = np.cumprod(1.0 - betas)[list(steps)]
        before = np.append(1.0, kept[:-1])
        beta = 1.0 - kept / before
        variance = beta * (1.0 - before) / (1.0 - kept)
        variance[0] = variance[1] if len(steps) > 1 else beta[0]  # it is 0, and has no logarithm
        self.steps = tuple(steps)
        self._x0_of_x = (1.0 / np.sqrt(kept)).tolist()
        self._x0_of_noise = np.sqrt(1.0 / kept - 1.0).tolist()
        self._mean_of_x0 = (beta * np.sqrt(before) / (1.0 - kept)).tolist()
        self._mean_of_x = ((1.0 - before) * np.sqrt(1.0 - beta) / (1.0 - kept)).tolist()
        self._least_log = np.log(variance).tolist()
        self._most_log = np.log(beta).tolist()

    def sample(self, model: DenoisingModel, start: Tensor, noises: Iterable[Tensor]) -> Tensor:
        """Latents `(B, C, ...)`, float32 at least, from `start`, standard normal; nothing is clipped on the way.

        `noises` give a standard normal tensor shaped as `start` for each step but the last, in running order; any
        more of them are left alone.
        """
        x = at_least_float32(start)
        draws = iter(noises)
        for row in range(len(self.steps) - 1, -1, -1):
            times = torch.full((len(x),), self.steps[row], dtype=torch.int64, device=x.device)
            mean, log_variance = self.before(at_least_float32(model(x, times)), x, row)
            x = mean + torch.exp(0.5 * log_variance) * next(draws).to(x) if row else mean
        return x

    def before(self, output: Tensor, x: Tensor, row: int) -> tuple[Tensor, Tensor]:
        """Mean and log-variance `(B, C, ...)` of the latents before `x`, which is at `steps[row]`.

        `output`, `(B, 2C, ...)`, is the model's: the noise in `x`, and where the log-variance lies between the
        posterior's (-1) and the forward process's (1).
        """
        noise, place = output.chunk(2, dim=1)
        x0 = self._x0_of_x[row] * x - self._x0_of_noise[row] * noise
        mean = self._mean_of_x0[row] * x0 + self._mean_of_x[row] * x
        fraction = (place + 1.0) / 2.0
        return mean, fraction * self._most_log[row] + (1.0 - fraction) * self._least_log[row]
