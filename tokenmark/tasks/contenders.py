"""Who is timed: a reduced classifier and the same classifier unreduced, with each its reference for the audit."""

import copy
import functools
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from tokenmark import backbones, build, registry
from tokenmark.backbones import Backbone, Normalised
from tokenmark.contracts import ClassifierMethod, ReducedModel
from tokenmark.measures.audit import Contender
from tokenmark.shelf import Shelf
from tokenmark.spec import RunSpec

METHOD, EAGER, FUSED, COMPILED = "method", "eager", "fused", "compiled"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""The types in which a model may run, by the name in a specification."""


class Contenders:
    """The method and, where it reduces a classifier, that classifier: eager, fused and, where it can be, compiled.

    Eager and fused share one set of weights. Accuracy is measured on `method` and `base`, which are timed too.
    """

    def __init__(self, spec: RunSpec, device: torch.device, shelf: Shelf | None = None) -> None:
        self._spec, self._device, self._shelf = spec, device, shelf or Shelf()
        self.dtype = DTYPES[spec.precision]
        self.warnings: list[str] = []
        self.reduced: ReducedModel | None = None
        self.base: nn.Module | None = None
        self._head: nn.Module | None = None
        if spec.model is None:
            self.network = self._classifier()
            self.backbone = _of_classifier(spec.method, self.network)
        else:
            self.backbone = backbones.get(spec.model)
            self.model = backbones.load(spec.model, device, self.dtype, spec.seed, self._shelf)
            self._head = backbones.head_of(spec.model, device, spec.seed, self._shelf)
            self.unreduced = build.reduced("none", self.model, {})
            self.base = self._wrapped(self.model)
            self.reduced = self._reduced()
            self.network = cast("nn.Module", self.reduced)
        self.method = self._wrapped(self.network)

    def _classifier(self) -> nn.Module:
        """A classifier that reduces tokens by its own architecture."""
        found = build.classifier(self._spec.method, self._spec.variant or "", self._shelf)
        return found.to(self._device, self.dtype)

    def _reduced(self, attention: str = "fused") -> ReducedModel:
        """The reduced classifier, built anew on the same weights, and so without memory of what it saw."""
        spec = self._spec
        if spec.variant is None:
            return build.reduced(spec.method, self.model, spec.settings, spec.seed, attention)
        tuned = build.fine_tuned(spec.method, spec.variant, self.backbone.build(), self._shelf, attention)
        cast("nn.Module", tuned).to(self._device, self.dtype)
        return tuned

    @property
    def eager(self) -> nn.Module:
        """The method with every attention matrix written out, for the counter."""
        return self.method if self.base is None else self._wrapped(cast("nn.Module", self._reduced("eager")))

    def counts(self, images: Tensor) -> Tensor:
        """How many tokens of images in [0, 1] enter every attention and MLP, `(B, blocks, 2)`."""
        return cast("ReducedModel", self.reduced).counts(cast("Normalised", self.method).normalise(images))

    def all(self, *, compile_too: bool) -> dict[str, Contender]:
        """Every contender by name; that the compiled baseline failed is a warning."""
        if self.base is None:
            return {METHOD: Contender(self.method, self._fresh)}
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
                call = compiled(self._spec.model or "", self._device, self.dtype, self._spec.seed, self._shelf)
                contenders[COMPILED] = Contender(call, FUSED)
            except Exception as error:  # noqa: BLE001  a compiler fails in many ways, and none may stop the run
                reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
                self.warnings.append(f"no compiled baseline: {reason[:160]}")
        return contenders

    def _wrapped(self, model: nn.Module) -> nn.Module:
        return Normalised(self.backbone, model, self._head).to(self._device).eval()

    def _fresh(self, images: Tensor) -> Tensor:
        """Logits by a model that is built anew on the same weights, and so remembers nothing."""
        anew = self._classifier() if self.base is None else cast("nn.Module", self._reduced())
        return cast("Tensor", self._wrapped(anew)(images))


def _of_classifier(method: str, network: nn.Module) -> Backbone:
    """How images are made ready for a classifier of its own architecture, which says what it takes."""
    found = registry.get_as(ClassifierMethod, method)
    return Backbone(sizes={}, weights=None, mean=found.mean, std=found.std, shape=cast("Any", network).image_shape)


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
    call = Normalised(backbone, loaded, backbones.head_of(model, device, seed, shelf)).to(device).eval()
    fast = cast("Callable[[Tensor], Tensor]", torch.compile(call, dynamic=False))
    with torch.inference_mode():
        fast(torch.zeros(1, *backbone.shape, device=device))
    return fast
