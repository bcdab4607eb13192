"""Noise of a sampler as a vector recorded it, in place of noise that is drawn."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from reference_impls.layers.class_generator import Watch

__all__ = ["Recorded", "Remembering"]


class Recorded:
    """The noise of one run: under each name `(steps, B, ...)`, or one for each step."""

    def __init__(self, rows: Mapping[str, Tensor | Sequence[Tensor]]) -> None:
        self._rows = rows

    def uniform(self, name: str, step: int, *shape: int) -> Tensor:
        """The recorded numbers of a step, `(B, *shape)`."""
        found = self._rows[name][step]
        if found.shape[1:] != shape:
            raise ValueError(f"noise '{name}' is recorded as {tuple(found.shape[1:])} per image, and not {shape}")
        return found

    def normal(self, name: str, step: int, *shape: int) -> Tensor:
        """The recorded numbers of a step, `(B, *shape)`, which the vector's rule has made Gaussian."""
        return self.uniform(name, step, *shape)


class Remembering(Watch):
    """Keeps what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def see(self, numbers: Tensor) -> Tensor:
        """The same numbers, remembered."""
        self.seen.append(numbers)
        return super().see(numbers)
