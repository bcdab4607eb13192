"""Checkpoints as releases lay them out: where in a file the tensors lie, and what their keys are in the module."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tokenmark import weights
from tokenmark.contracts import Layout, TokenizerMethod, Variant
from tokenmark.errors import WeightsError

WRAPPERS = ("state_dict", "model", "model_state_dict", "module", "ema", "model_ema", "ema_model")
"""Names under which checkpoints usually keep their tensors, for layouts that name none."""
CONFIG = "config.json"


def load(module: nn.Module, path: Path, layout: Layout) -> None:
    """Fill a module from a release's checkpoint; keys and shapes must be exactly the module's.

    Raises:
        WeightsError: the file cannot be read as data, or does not fit; nothing is loaded then.
    """
    weights.fill_strict(module, tensors(path, layout), path)


def tensors(path: Path, layout: Layout) -> dict[str, Tensor]:
    """The tensors of a checkpoint under the module's keys, averaged weights in the place of plain ones.

    Raises:
        WeightsError: it holds no named tensors where the layout says, or two of them would get one key.
    """
    held = _unwrapped(weights.content(path), layout, path)
    averaged = _averaged(held, layout)
    found: dict[str, Tensor] = {}
    for key, value in held.items():
        if key.startswith((*layout.ignored, *((layout.shadow,) if layout.shadow else ()))):
            continue
        own = layout.module_key(key)
        if own in found:
            raise WeightsError(f"{path} holds {own} twice (once as {key}): it is no checkpoint of this layout")
        found[own] = averaged.get(key.replace(".", ""), value)
    return found


def _averaged(held: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """Averaged weights by the names of the plain ones, dots left out."""
    if not layout.shadow:
        return {}
    return {key.removeprefix(layout.shadow): value for key, value in held.items() if key.startswith(layout.shadow)}


def _unwrapped(content: Any, layout: Layout, path: Path) -> dict[str, Tensor]:
    """The dictionary of tensors in what a file holds."""
    if not isinstance(content, dict):
        raise WeightsError(f"{path} does not hold named tensors: take a file with a state dictionary")
    if content and all(isinstance(value, Tensor) for value in content.values()):
        return content
    there = [name for name in layout.wrappers or WRAPPERS if isinstance(content.get(name), dict)]
    if not there or (len(there) > 1 and not layout.wrappers):
        names = ", ".join(map(str, list(content)[:8]))
        raise WeightsError(f"{path} does not hold this model's tensors at its top, but: {names}")
    inner = content[there[0]]
    if not all(isinstance(value, Tensor) for value in inner.values()):
        raise WeightsError(f"{path} holds more than named tensors under '{there[0]}'")
    return dict(inner)


def arguments(method: TokenizerMethod, variant: Variant, path: Path | None, name: str) -> dict[str, Any]:
    """What the method's `build` is called with: the variant's sizes, and what a configuration beside the weights adds.

    A `config.json` beside the weights is read as data. It must not contradict the variant.

    Raises:
        WeightsError: it cannot be read, or is another variant's.
    """
    own = dict(variant.config)
    place = path.parent / CONFIG if path is not None else None
    if place is None or method.from_release is None or not place.is_file():
        return own
    try:
        told = method.from_release(json.loads(place.read_text(encoding="utf-8")))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"{place} is no configuration of {method.id} ({type(error).__name__}: {error}); take the release's,"
            " or remove it to go by the variant's sizes"
        ) from error
    for key, value in own.items():
        if key in told and _plain(told[key]) != _plain(value):
            raise WeightsError(f"{place} is not of {name}: {key} is {told[key]} there, and {value} in this variant")
    return own | dict(told)


def _plain(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
