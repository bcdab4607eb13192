"""Multiply-accumulates of loops of many steps, counted on tensors without content.

torch's own counter sees every kernel and takes apart what it does not know: milliseconds for each, and samplers call
a million. This one looks at the few functions that multiply, where they are called; and a module that is called again
with arguments of the same shapes is not called again: it costs what it cost, and gives what it gave.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from tokenmark.errors import MethodError

__all__ = ["called_macs"]

Count = Callable[..., int]


def _linear(x: Tensor, weight: Tensor, *_: Any, out: Tensor) -> int:
    return out.numel() * x.shape[-1] if weight.dim() > 1 else x.numel()


def _convolution(_: Tensor, weight: Tensor, *__: Any, out: Tensor) -> int:
    """Every number of the output is a product over one filter, whose channels are those of its group."""
    return out.numel() * weight[0].numel()


def _transposed(x: Tensor, weight: Tensor, *_: Any, out: Tensor) -> int:  # noqa: ARG001  one signature for all
    return x.numel() * weight[0].numel()


def _product(a: Tensor, _: Tensor, *__: Any, out: Tensor) -> int:
    return out.numel() * a.shape[-1]


def _added(_: Tensor, a: Tensor, b: Tensor, *__: Any, out: Tensor) -> int:
    return _product(a, b, out=out)


COUNTS: Mapping[Any, Count] = {
    functional.linear: _linear,
    **dict.fromkeys((functional.conv1d, functional.conv2d, functional.conv3d), _convolution),
    **dict.fromkeys(
        (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d), _transposed
    ),
    **dict.fromkeys(
        (torch.matmul, torch.bmm, torch.mm, Tensor.matmul, Tensor.bmm, Tensor.mm, Tensor.__matmul__), _product
    ),
    **dict.fromkeys((torch.baddbmm, torch.addmm, Tensor.baddbmm, Tensor.addmm), _added),
    torch.cdist: _product,
}
NOT_COUNTED = (torch.einsum, functional.multi_head_attention_forward, functional.bilinear)
"""Functions that multiply, and are not seen in here."""


BETWEEN = frozenset(
    getattr(Tensor, name)
    for operation in ("add", "sub", "mul", "truediv")
    for name in (f"__{operation}__", f"__r{operation}__", f"__i{operation}__")
) | {torch.add, torch.sub, torch.mul, torch.div, Tensor.add, Tensor.sub, Tensor.mul, Tensor.div}
"""Number by number. torch finds their shapes in Python too, which takes most of the time of a step."""


def _between(a: Any, b: Any) -> Tensor | None:
    """What an operation number by number gives, if that is plain from two arguments."""
    if isinstance(b, Tensor) and not isinstance(a, Tensor):
        a, b = b, a
    if not isinstance(a, Tensor) or not a.is_meta or not a.is_floating_point():
        return None
    if isinstance(b, int | float) or (isinstance(b, Tensor) and b.is_meta and (b.dtype, b.shape) == (a.dtype, a.shape)):
        return a.new_empty(a.shape)
    if isinstance(b, Tensor) and b.is_meta and b.dtype == a.dtype:
        return a.new_empty(_together(a.shape, b.shape))
    return None


def _together(one: torch.Size, other: torch.Size) -> list[int]:
    """The shape of two that fit, number by number."""
    lengths = itertools.zip_longest(reversed(one), reversed(other), fillvalue=1)
    return [b if a == 1 else a for a, b in lengths][::-1]


def _joined(func: Any, args: tuple[Any, ...], given: Mapping[str, Any]) -> Tensor | None:
    """What torch.stack or torch.cat gives, if that is plain from its arguments."""
    parts = args[0]
    if not isinstance(parts, list | tuple) or len({(part.dtype, part.dim(), part.is_meta) for part in parts}) != 1:
        return None
    first = parts[0]
    place = given.get("dim", args[1] if len(args) > 1 else 0)
    if not first.is_meta or set(given) - {"dim"}:
        return None
    shape = list(first.shape)
    if func is torch.stack:
        shape.insert(place % (first.dim() + 1), len(parts))
    else:
        shape[place] = sum(part.shape[place] for part in parts)
    made: Tensor = first.new_empty(shape)
    return made


class _Counter(TorchFunctionMode):
    """Sums what the calls of its functions multiply."""

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Count, then do what was asked; attention alone is not done: its output has a shape that is known."""
        del types
        given = dict(kwargs or {})
        if func is functional.scaled_dot_product_attention:
            query, key, value = args[:3]
            width = query.shape[-1] + value.shape[-1]
            self.macs += query.numel() // query.shape[-1] * key.shape[-2] * width
            return query.new_empty(*query.shape[:-1], value.shape[-1])
        if func in NOT_COUNTED:
            raise MethodError(f"{func.__name__} is not counted: write it with linear, matmul and attention")
        if func in BETWEEN and len(args) == 2 and not given:
            plain = _between(*args)
            if plain is not None:
                return plain
        if func in (torch.stack, torch.cat):
            plain = _joined(func, args, given)
            if plain is not None:
                return plain
        out = func(*args, **given)
        count = COUNTS.get(func)
        if count is not None:
            self.macs += count(*args, *(given[name] for name in ("weight",) if name in given), out=out)
        return out


class _Unknown(Exception):  # noqa: N818  no error, but an answer
    """Something of which no shape says what it does."""


def _shape(value: Any) -> Any:
    """All of a value that can change what a call computes on tensors without content."""
    match value:
        case Tensor():
            return value.shape, value.dtype
        case None | bool() | int() | float() | str() | torch.dtype() | torch.device():
            return value
        case list() | tuple():
            return tuple(map(_shape, value))
        case dict():
            return tuple((key, _shape(each)) for key, each in value.items())
        case nn.Module():
            return id(value)
    try:
        return type(value), _shape(vars(value))
    except TypeError as error:
        raise _Unknown from error


COMMON = frozenset(vars(nn.Module())) | {"forward"}
"""What every module has, parameters and parts among it."""


class _Memory:
    """The calls of one module, by the shapes of their arguments."""

    def __init__(self, module: nn.Module, counter: _Counter) -> None:
        self._forward, self._counter = module.forward, counter
        self._known: dict[Any, tuple[int, Any]] = {}
        # where something else was put into a module's call, no argument tells what that does
        self._changes = any(
            "forward" in vars(part) or part._forward_hooks or part._forward_pre_hooks for part in module.modules()
        )
        # what the module and its parts remember beside parameters and buffers
        self._held = [vars(part) for part in module.modules()]
        self._names = [[name for name in held if name not in COMMON] for held in self._held]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._changes:
            return self._forward(*args, **kwargs)
        try:
            key = self._key(args, kwargs)
        except _Unknown:
            self._changes = True
            return self._forward(*args, **kwargs)
        if key in self._known:
            macs, out = self._known[key]
            self._counter.macs += macs
            return out
        before = self._counter.macs
        out = self._forward(*args, **kwargs)
        # a module that writes down something, or into its arguments, must be called each time
        self._changes = key != self._key(args, kwargs)
        self._known[key] = self._counter.macs - before, out
        return out

    def _key(self, args: Any, kwargs: Any) -> Any:
        state = tuple(
            _shape(held[name])
            for held, names in zip(self._held, self._names, strict=True)
            for name in names
            if not callable(held[name])
        )
        return _shape(args), _shape(kwargs), state


def called_macs(call: Callable[[], object], network: nn.Module) -> int:
    """MACs of one call of something that calls `network`, whose tensors have no content, and which is spent after it.

    Raises:
        MethodError: it calls a function that multiplies and is not counted here.
    """
    counter = _Counter()
    with torch.no_grad(), counter:
        memories = [(module, _Memory(module, counter)) for module in network.modules()]
        for module, memory in memories:
            module.forward = memory
        call()
    return counter.macs
