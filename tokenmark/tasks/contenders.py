"""Who is timed: a reduced classifier and the same classifier unreduced, with each its reference for the audit."""

import copy
import functools
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from tokenmark import backbones, build
from tokenmark.measures.audit import Contender
from tokenmark.shelf import Shelf
from tokenmark.spec import RunSpec

METHOD, EAGER, FUSED, COMPILED = "method", "eager", "fused", "compiled"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""The types in which a model may run, by the name in a specification."""


class Contenders:
    """The method and the unreduced baselines: eager attention, fused attention and, where it can be, compiled.

    Eager and fused share one set of weights. Accuracy is measured on `method` and `base`, which are timed too.
    """

    def __init__(self, spec: RunSpec, device: torch.device, shelf: Shelf | None = None) -> None:
        self._spec, self._device, self._shelf = spec, device, shelf or Shelf()
        self.dtype = DTYPES[spec.precision]
        name = spec.variant or ""
        self.backbone = backbones.get(name)
        self.model = backbones.load(name, device, self.dtype, spec.seed, self._shelf)
        self.reduced = build.reduced(spec.method, self.model, spec.settings, spec.seed)
        self.unreduced = build.reduced("none", self.model, {})
        self.base = self._wrapped(self.model)
        self.method = self._wrapped(cast("nn.Module", self.reduced))
        written_out = build.reduced(spec.method, self.model, spec.settings, spec.seed, attention="eager")
        self.eager = self._wrapped(cast("nn.Module", written_out))
        self.warnings: list[str] = []

    def counts(self, images: Tensor) -> Tensor:
        """How many tokens of images in [0, 1] enter every attention and MLP, `(B, blocks, 2)`."""
        return self.reduced.counts(cast("backbones.Normalised", self.method).normalise(images))

    def all(self, *, compile_too: bool) -> dict[str, Contender]:
        """Every contender by name; that the compiled baseline failed is a warning."""
        eager = _shared_copy(self.model)
        for module in eager.modules():
            if hasattr(module, "fused_attn"):
                cast("Any", module).fused_attn = False
        contenders = {
            METHOD: Contender(self.method, self._fresh),
            EAGER: Contender(self._wrapped(eager), FUSED),
            FUSED: Contender(self.base, EAGER),
        }
        if compile_too:
            try:
                call = compiled(self._spec.variant or "", self._device, self.dtype, self._spec.seed, self._shelf)
                contenders[COMPILED] = Contender(call, FUSED)
            except Exception as error:  # noqa: BLE001  a compiler fails in many ways, and none may stop the run
                reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
                self.warnings.append(f"no compiled baseline: {reason[:160]}")
        return contenders

    def _wrapped(self, model: nn.Module) -> nn.Module:
        return backbones.Normalised(self.backbone, model).to(self._device).eval()

    def _fresh(self, images: Tensor) -> Tensor:
        """Logits by a reduced model that is built anew on the same weights, and so remembers nothing."""
        built = build.reduced(self._spec.method, self.model, self._spec.settings, self._spec.seed)
        return cast("Tensor", self._wrapped(cast("nn.Module", built))(images))


def _shared_copy(model: nn.Module) -> nn.Module:
    """A copy with modules of its own on the same weights."""
    weights = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in weights})


@functools.cache
def compiled(
    model: str, device: torch.device, dtype: torch.dtype, seed: int, shelf: Shelf
) -> Callable[[Tensor], Tensor]:
    """The unreduced classifier through torch.compile, tried once; one per process, for compiling takes a while.

    Raises:
        Exception: whatever torch says where it cannot compile (no C++ compiler on a processor, say).
    """
    backbone = backbones.get(model)
    loaded = backbones.load(model, device, dtype, seed, shelf)
    call = backbones.Normalised(backbone, loaded).to(device).eval()
    fast = cast("Callable[[Tensor], Tensor]", torch.compile(call, dynamic=False))
    with torch.inference_mode():
        fast(torch.zeros(1, *backbone.shape, device=device))
    return fast
