"""How a parity vector makes weights and inputs from names alone, and what it keeps of an output.

Everything is float64 NumPy from a counter-based generator (Philox4x64-10; Salmon et al. 2011), so that the same
name gives the same values on every machine.
"""

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

RTOL = 1e-6
"""Floats agree when every kept difference is within this share of the output's root mean square."""
PLACES = 64
"""Evenly spaced places at which a float output is kept."""
MOST_INTEGERS = 4096
"""Integers up to this number are kept whole."""
SCALES = frozenset({"weight", "gamma", "scale", "running_var"})


def uniform(name: str, shape: tuple[int, ...]) -> Array:
    """Values in [-1, 1) of `shape`: 53 bits of each draw of Philox, keyed by the SHA-256 of `name`."""
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "little")
    count = math.prod(shape)
    raw = np.random.Philox(key=key).random_raw(count) if count else np.zeros(0, np.uint64)
    values = (np.asarray(raw, np.uint64) >> np.uint64(11)) * 2.0**-52 - 1.0
    return np.asarray(values).reshape(shape)


def weight(key: str, shape: tuple[int, ...]) -> Array:
    """A parameter or floating-point buffer by the release's `key` for it.

    With two dimensions or more: variance 1 / fan-in, the fan-in being the size over the first dimension. With fewer:
    1 + 0.1 u for scales, else 0.1 u.
    """
    values = uniform(key, shape)
    if len(shape) >= 2:
        return values * math.sqrt(3.0 / (math.prod(shape) / shape[0]))
    return 1.0 + 0.1 * values if key.rpartition(".")[2] in SCALES else 0.1 * values


def made_input(name: str, rule: Mapping[str, Any]) -> Array:
    """An input by its rule: `uniform` in [-1, 1), `unit` in [0, 1), or its values outright."""
    shape = tuple(rule["shape"])
    if "values" in rule:
        return np.asarray(rule["values"]).reshape(shape)
    values = uniform("input:" + rule.get("tag", name), shape)
    return values if rule["rule"] == "uniform" else (values + 1.0) / 2.0


def difference(expected: Mapping[str, Any], array: Array, rtol: float = RTOL) -> str | None:
    """None where `array` is the recorded output, else what differs, in a few words."""
    if list(array.shape) != expected["shape"]:
        return f"shape {list(array.shape)}, expected {expected['shape']}"
    flat = array.reshape(-1)
    values = np.asarray(expected["values"])
    if expected["kind"] == "integer":
        return _differing_integers(flat, values, expected["sum"])
    root_mean_square = expected["l2"] / math.sqrt(max(1, flat.size)) or 1.0
    kept = flat[_places(flat.size, PLACES)].astype(np.float64)
    worst = float(np.abs(kept - values).max(initial=0.0)) / root_mean_square
    if worst <= rtol:
        return None
    return f"differs by {worst:.2e} of the root mean square, allowed {rtol:.0e}"


def _differing_integers(flat: Array, values: Array, total: int) -> str | None:
    if flat.dtype.kind not in "iub":
        return f"holds {flat.dtype}, expected integers"
    kept = flat if flat.size <= MOST_INTEGERS else flat[_places(flat.size, MOST_INTEGERS)]
    wrong = int((kept.astype(np.int64) != values).sum())
    if wrong:
        return f"{wrong} of {len(values)} integers differ"
    found = int(flat.astype(np.int64).sum())
    return None if found == total else f"the sum of all integers is {found}, expected {total}"


def _places(size: int, most: int) -> Array:
    return np.linspace(0, size - 1, min(most, size)).astype(int)
