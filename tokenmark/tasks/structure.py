"""Structure: what a method is made of, at its official size: parameters, tensors, tokens, bits, multiply-accumulates.

Nothing is loaded and nothing is computed: tensors have shapes and no content, so that billions of parameters take
seconds on any machine, and the numbers are the same on all.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, cast

import torch
from pydantic import JsonValue
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel

from tokenmark import backbones, budgets, build, registry
from tokenmark.contracts import (
    ClassifierMethod,
    GeneratorMethod,
    Tokenizer,
    TokenizerInfo,
    TokenizerMethod,
    Tokens,
    UnsupportedBackboneError,
    Variant,
    VitCost,
)
from tokenmark.errors import MethodError
from tokenmark.measures.base import Measure
from tokenmark.measures.cost import counted_macs
from tokenmark.records import Value
from tokenmark.spec import RunSpec
from tokenmark.tasks.base import Context, Outcome, Task
from tokenmark.tasks.coding import Coder
from tokenmark.tasks.sampler import macs_of

BITS_OF_PIXEL = 24
"""Of an image as it is shown: three channels of eight bits."""


class StructureSession:
    """A method whose parts are counted."""

    total = 0

    def __init__(self, spec: RunSpec, context: Context) -> None:  # noqa: ARG002  the runner's signature
        self._spec = spec
        self.measures: dict[str, Measure] = {}

    def step(self, start: int, stop: int) -> None:
        """There is nothing to do image by image."""

    def finish(self, say: Callable[[str], None]) -> Outcome:
        """Count parameters and tensors, then what a code holds, or what a classifier costs."""
        say("counting")
        outcome = Outcome([])
        try:
            numbers = self._of_model(outcome) if self._spec.model else self._of_variant()
        except (DataDependentOutputException, DynamicOutputShapeException) as error:
            raise MethodError(
                f"what {self._spec.title} computes depends on what the image shows: it cannot be counted from shapes;"
                " give its job measures = ['size']"
            ) from error
        outcome.values = [Value(name=name, value=float(number), n=1) for name, number in numbers.items()]
        return outcome

    def _of_variant(self) -> dict[str, float]:
        spec, costs = self._spec, "cost" in self._spec.measures
        method = registry.get(spec.method)
        if isinstance(method, GeneratorMethod):
            return _of_generator(method, spec, costs=costs)
        size = registry.variant_of(cast("TokenizerMethod | ClassifierMethod", method), spec.variant or "")
        with torch.device("meta"):
            network = cast("Any", method).build(**size.config)
        if isinstance(method, TokenizerMethod):
            return _of_tokenizer(network, size, spec, costs=costs)
        numbers = _parts(network)
        if costs:
            numbers["macs"] = _counted(network, network.image_shape)
        return numbers | {"image_size": network.image_shape[1]}

    def _of_model(self, outcome: Outcome) -> dict[str, float]:
        """A classifier of timm's or open_clip's with its tokens reduced."""
        spec = self._spec
        model = spec.model or ""
        try:
            return self._reduced(model, outcome)
        except UnsupportedBackboneError:
            if spec.method != "none":
                raise
        plain, shape = budgets.architecture(model), backbones.get(model).shape
        return _parts(plain) | {"image_size": shape[1], "macs": _counted(plain, shape)}

    def _reduced(self, model: str, outcome: Outcome) -> dict[str, float]:
        spec = self._spec
        found = build.reduced(spec.method, budgets.architecture(model), spec.settings)
        whole = build.reduced("none", budgets.architecture(model), {})
        macs = found.cost.macs(found.schedule)
        outcome.details["schedule"] = [[block.attention, block.mlp] for block in found.schedule]
        outcome.details["cost"] = _cost(found.cost)
        numbers = _parts(cast("nn.Module", found)) | {
            "image_size": backbones.get(model).shape[1],
            "tokens": found.schedule[0].attention,
            "macs_method": found.extra_macs,
        }
        if found.adaptive:  # images keep different numbers of tokens: what is known is a bound, and no cost
            return numbers | {"macs_most": macs}
        return numbers | {
            "macs": macs,
            "macs_total": macs + found.extra_macs,
            "macs_ratio": macs / whole.cost.macs(whole.schedule),
            "tokens_left": found.schedule[-1].mlp,
        }


def _of_generator(method: GeneratorMethod, spec: RunSpec, *, costs: bool) -> dict[str, float]:
    """Sizes are of the generator alone; a sample's cost is of all steps, guidance and decoder included."""
    variant, meta = spec.variant or "", torch.device("meta")
    size = registry.variant_of(method, variant)
    with meta:
        decoder = None if size.tokenizer is None else build.drawn_tokenizer(*build.tokenizer_of(method, size), meta)
        generator = method.build(decoder, **size.config)
    numbers = _parts(cast("nn.Module", generator))
    if decoder is not None:
        numbers["image_size"] = decoder.info.image_size
    if costs and "preset" in spec.settings:
        preset = build.preset_of(method, str(spec.settings["preset"]), variant)
        numbers["steps"] = generator.steps(preset.settings)
        numbers["macs"] = macs_of(method.id, variant, preset)
    return numbers


def _parts(network: nn.Module) -> dict[str, float]:
    """Numbers in parameters, and tensors of the checkpoint (buffers among them)."""
    return {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "state_entries": len(network.state_dict()),
    }


def _cost(cost: VitCost) -> JsonValue:
    """The constants of the formula; blocks that are alike stand there once."""
    blocks = [{"linear": block.linear, "pairs": block.pairs, "mlp": block.mlp} for block in cost.blocks]
    alike = all(block == blocks[0] for block in blocks)
    fixed = {"embed": cost.embed, "head": cost.head, "head_per_token": cost.head_per_token}
    return {**fixed, "blocks": cast("JsonValue", blocks[:1] if alike else blocks), "depth": len(blocks)}


def _of_tokenizer(tokenizer: Tokenizer, size: Variant, spec: RunSpec, *, costs: bool) -> dict[str, float]:
    """Sizes are of what the release holds; a run needs its parts too."""
    info = tokenizer.info
    if spec.tokens is not None:
        info = dataclasses.replace(info, max_tokens=spec.tokens)
    network = cast("nn.Module", tokenizer)
    numbers = _parts(network) | {"image_size": info.image_size} | _code(info) | _row_width(network, info)
    if costs and size.parts:
        with torch.device("meta"):
            cast("Any", tokenizer).draw_parts()
    return numbers | (_coding(tokenizer, spec) if costs else {})


def _code(info: TokenizerInfo) -> dict[str, float]:
    """What a whole code holds, beside the image that it stands for."""
    if info.max_tokens is None:
        return {}
    pixels, bits = info.image_size**2, info.max_tokens * info.bits_per_token
    code = {
        "tokens": info.max_tokens,
        "bits_per_token": info.bits_per_token,
        "bits_per_image": bits,
        "bits_per_pixel": bits / pixels,
        "compression_ratio": BITS_OF_PIXEL * pixels / bits,
    }
    if info.codebook_sizes:
        code["codebooks"] = len(info.codebook_sizes)
    if len(set(info.codebook_sizes)) == 1:
        code["codebook_size"] = info.codebook_sizes[0]
    return code


def _row_width(network: nn.Module, info: TokenizerInfo) -> dict[str, float]:
    """Channels of a codebook's rows: the width of the one table that has as many rows as the codebook has codes."""
    rows = set(info.codebook_sizes)
    tables = (module for module in network.modules() if isinstance(module, nn.Embedding))
    widths = {table.embedding_dim for table in tables if table.num_embeddings in rows}
    return {"code_width": widths.pop()} if len(rows) == len(widths) == 1 else {}


def _coding(tokenizer: Tokenizer, spec: RunSpec) -> dict[str, float]:
    """MACs of encoding and decoding one image, and the width of its latents."""
    found: list[Tokens] = []
    with FakeTensorMode(allow_non_fake_inputs=True), sdpa_kernel(SDPBackend.MATH):
        coder = Coder(cast("Tokenizer", _shaped(cast("nn.Module", tokenizer))), spec, torch.device("cpu"))
        image = torch.empty(1, 3, tokenizer.info.image_size, tokenizer.info.image_size)

        def encode(images: Tensor) -> Tensor:
            found.append(coder.encode(images, spec.tokens))
            return images

        numbers: dict[str, float] = {"encode_macs": counted_macs(encode, image)}
        numbers["decode_macs"] = counted_macs(lambda _image: coder.decode(found[0]), image)
        numbers["macs"] = numbers["encode_macs"] + numbers["decode_macs"]
    latents = found[0].latents
    if latents is not None:
        numbers |= {"latent_width": latents.shape[-1], "latent_size": latents[0].numel()}
    return numbers


def _counted(network: nn.Module, shape: tuple[int, int, int]) -> int:
    """MACs of one image by the counter, of a network whose cost no formula here tells."""
    with FakeTensorMode(allow_non_fake_inputs=True), sdpa_kernel(SDPBackend.MATH):
        return counted_macs(_shaped(network), torch.empty(1, *shape))


def _shaped(network: nn.Module) -> nn.Module:
    """The network with tensors that seem to lie on the processor, and have no content."""
    return network.to_empty(device="cpu").eval().requires_grad_(requires_grad=False)


STRUCTURE = Task(
    name="structure",
    title="Structure",
    measures=("size", "cost"),
    usual=("size", "cost"),
    open=cast("Callable[[RunSpec, Context], StructureSession]", StructureSession),
)
