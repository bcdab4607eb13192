"""Parts of a model whose weights lie in another file than its own."""

from typing import Any

from torch import nn

__all__ = ["keep_apart"]


def keep_apart(module: nn.Module, name: str) -> None:
    """Leave the part `name` of `module` out of its state dicts, and let it load those that are without it."""

    def leave_out(_module: nn.Module, state: dict[str, Any], prefix: str, _metadata: Any) -> None:
        for key in [key for key in state if key.startswith(f"{prefix}{name}.")]:
            del state[key]

    def nothing_missing(
        _module: nn.Module, keys: Any
    ) -> None:  # called with what was missing so far, here or elsewhere
        keys.missing_keys[:] = [key for key in keys.missing_keys if f".{name}." not in f".{key}"]

    module.register_state_dict_post_hook(leave_out)
    module.register_load_state_dict_post_hook(nothing_missing)
