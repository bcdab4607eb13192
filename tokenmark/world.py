"""The processes of one run: one, or as many as `torchrun` started. Rank 0 writes; the others measure with it.

Only small facts and finished states travel, through gloo, so that it works the same for processors and GPUs.
"""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar, cast

import torch.distributed as dist

from tokenmark.errors import TokenmarkError

T = TypeVar("T")

PATIENCE = timedelta(hours=12)
"""A process may wait this long for another that computes or times something; one that ends is noticed at once."""


@dataclass(frozen=True, slots=True)
class World:
    """Which of how many processes this is."""

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls) -> "World":
        """The world that torchrun's environment names; this process alone where there is none.

        Raises:
            TokenmarkError: the other processes cannot be reached.
        """
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return cls()
        try:
            if not dist.is_initialized():
                dist.init_process_group("gloo", timeout=PATIENCE)
        except (RuntimeError, ValueError) as error:
            raise TokenmarkError(f"the {size} processes of this run cannot reach each other: {error}") from error
        world = cls(dist.get_rank(), size)
        signal.signal(signal.SIGTERM, world._lost)  # torchrun's, when another process ended
        return world

    @property
    def leads(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def shard(self, total: int, batch: int) -> tuple[int, int]:
        """First and one past the last image of this process.

        Whole batches are dealt, in order, so that every batch holds the images that it holds in a single process.
        """
        batches = -(-total // batch)
        first, last = (batches * rank // self.size * batch for rank in (self.rank, self.rank + 1))
        return min(first, total), min(last, total)

    def lead(self, action: Callable[[], T]) -> T:
        """What `action` gives in rank 0, in all processes; its error is everybody's.

        Raises:
            Exception: the error of rank 0; elsewhere a TokenmarkError with its words.
        """
        if self.size == 1:
            return action()
        box: list[T] = []
        self.together(lambda: box.append(action()) if self.leads else None)
        return self._talk(lambda: _broadcast(box[0] if box else None))  # type: ignore[return-value]

    def together(self, action: Callable[[], T]) -> T:
        """This process' own result of `action`, once all have theirs; an error of one is everybody's.

        Raises:
            Exception: this process' own error; that of another as a TokenmarkError with its words.
        """
        if self.size == 1:
            return action()
        box: list[T] = []
        error: Exception | None = None
        try:
            box.append(action())
        except Exception as caught:  # noqa: BLE001  whatever it is, the others must hear of it
            error = caught
        heard = self._talk(lambda: _all_gather(_words(error), self.size))
        if error is not None:
            raise error
        for rank, words in enumerate(heard):
            if words is not None:
                raise TokenmarkError(f"process {rank} of {self.size}: {words}")
        return box[0]

    def collect(self, value: T) -> list[T] | None:
        """The values of all processes by rank, in rank 0; None elsewhere."""
        if self.size == 1:
            return [value]
        return self._talk(lambda: _gather(value, self.size if self.leads else 0))

    def leave(self) -> None:
        """Say goodbye, so that the others do not take the end of this process for an accident."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def _talk(self, talk: Callable[[], T]) -> T:
        try:
            return talk()
        except RuntimeError as error:
            raise LostError(self.size) from error

    def _lost(self, *_: object) -> None:
        raise LostError(self.size)


class LostError(TokenmarkError):
    """A process of the run is gone: nothing can go on."""

    def __init__(self, size: int) -> None:
        super().__init__(
            f"another of the {size} processes ended: start the same command again, it goes on from the last checkpoint"
        )


def _words(error: Exception | None) -> str | None:
    return None if error is None else " ".join(str(error).split()) or type(error).__name__


# torch packs these objects with pickle: they come from the processes of this very run, never from a file or a network


def _broadcast(value: T) -> T:
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def _all_gather(value: T, size: int) -> list[T]:
    boxes: list[T | None] = [None] * size
    dist.all_gather_object(boxes, value)
    return cast("list[T]", boxes)


def _gather(value: T, size: int) -> list[T] | None:
    boxes: list[T | None] | None = [None] * size if size else None
    dist.gather_object(value, boxes, dst=0)
    return cast("list[T] | None", boxes)
