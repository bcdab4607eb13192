"""What a run that was stopped goes on from."""

import json
import time
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from tokenmark.files import write_atomic
from tokenmark.measures.base import State
from tokenmark.world import World

SAVING_PAUSE = 50.0
"""A state is saved again when so many times the time of its last saving passed: it grows to a gigabyte."""


def state_name(world: World) -> str:
    """The file in which a process keeps its share of an unfinished run."""
    return "state.npz" if world.size == 1 else f"state-{world.rank}-of-{world.size}.npz"


class Checkpoint:
    """The state of an unfinished run on disk: what was summed, over how many images, in what time."""

    def __init__(self, path: Path, every_seconds: float) -> None:
        self._path, self._every = path, every_seconds
        self._saved = self._begun = time.perf_counter()
        self._took = 0.0
        self.seconds_before = 0.0

    def load(self) -> tuple[int, State]:
        """Images done and the measures' state; nothing done where there is no state, or a broken one."""
        done, self.seconds_before, arrays = self._read()
        return done, arrays

    def again(self) -> tuple[int, State]:
        """The same in the process that saved it: no time passed elsewhere."""
        done, _, arrays = self._read()
        return done, arrays

    def _read(self) -> tuple[int, float, State]:
        try:
            with np.load(self._path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            facts = json.loads(str(arrays.pop("facts")))
            return int(facts["done"]), float(facts["seconds"]), arrays
        except (OSError, EOFError, ValueError, KeyError, BadZipFile):
            return 0, 0.0, {}

    def due(self) -> bool:
        """Whether it is time to save: not so often that saving takes a share of the run that one would notice.

        Who asks for no seconds at all between two savings gets one after every batch.
        """
        pause = max(self._every, SAVING_PAUSE * self._took) if self._every else 0.0
        return time.perf_counter() - self._saved >= pause

    def save(self, done: int, state: State) -> None:
        """Write the state atomically."""
        begun = time.perf_counter()
        facts = np.asarray(json.dumps({"done": done, "seconds": self.seconds_before + begun - self._begun}))
        write_atomic(self._path, lambda file: np.savez(file, facts=facts, **state))  # type: ignore[arg-type]
        self._saved = time.perf_counter()
        self._took = self._saved - begun
