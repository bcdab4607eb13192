"""One hook by which tokens are reduced in diffusion networks: DiT's blocks, and those of diffusers' U-Nets and PixArt.

`attach(network, hook)` gives a copy of a network, on the same weights, whose blocks ask `hook` what to do with their
tokens; the network itself stays as it was. A copy that is a generator begins its runs itself (`sample`); of any other,
as in a pipeline of diffusers, `begin` must be told of every run.
"""

import copy
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from reference_impls.layers.dit_blocks import DiTBlock
from reference_impls.layers.grid_matching import layer_grid
from reference_impls.layers.image_generator import ImageGenerator
from reference_impls.layers.sampler_attention import asked_of_all, recalling
from reference_impls.layers.token_hook import Call, Merging, Part, Place, Seen, TokenHook
from tokenmark.contracts import MethodError, UnsupportedBackboneError

__all__ = ["Call", "Merging", "Part", "Place", "Seen", "TokenHook", "attach", "begin", "blocks_of", "patch_of"]

N = TypeVar("N", bound=nn.Module)
STATE = "token_reduction"
PARTS: dict[str, dict[Part, str]] = {
    "DiTBlock": {"attention": "attn", "mlp": "mlp"},
    "BasicTransformerBlock": {"attention": "attn1", "cross_attention": "attn2", "mlp": "ff"},
}
"""The modules of the known blocks by what they do."""


def attach(network: N, hook: TokenHook) -> N:
    """A copy of `network` on the same weights whose blocks ask `hook`; `network` stays as it was.

    Raises:
        UnsupportedBackboneError: it has no block that is known here.
        MethodError: its tokens are reduced already.
    """
    if hasattr(network, STATE):
        raise MethodError("the tokens of this network are reduced already: give the network that it was made of")
    copied = _on_the_same_weights(network)
    blocks = blocks_of(copied)
    state = _Attached(hook, len(blocks), patch_of(network) or 1)
    for index, (block, parts) in enumerate(blocks):
        block.register_forward_pre_hook(state.entering(index), with_kwargs=True)
        for part in hook.parts & parts.keys():
            module: Any = parts[part]
            module.forward = state.around(index, part, module)
    copied.register_forward_pre_hook(state.called, with_kwargs=True)
    copied.register_forward_hook(state.returned)
    setattr(copied, STATE, state)
    if isinstance(copied, ImageGenerator):
        setattr(copied, "sample", state.sampling(copied))  # noqa: B010  an instance's own, in place of its class's
    return copied


def begin(network: nn.Module, seeds: Sequence[int], steps: int) -> None:
    """Tell a reduced network of a run of `steps` calls for the images of these seeds.

    Raises:
        MethodError: the network is not reduced.
    """
    state = getattr(network, STATE, None)
    if not isinstance(state, _Attached):
        raise MethodError("the tokens of this network are not reduced: it has no runs to be told of")
    state.begin(seeds, steps)


def patch_of(network: nn.Module) -> int | None:
    """Latents per side of a transformer's token; None for a U-Net, whose convolutions mix what tokens carry."""
    config = getattr(network, "config", None)
    found = getattr(config, "patch_size", None) or getattr(network, "patch_size", None)
    return int(found) if found else None


def blocks_of(network: nn.Module) -> list[tuple[nn.Module, dict[Part, nn.Module]]]:
    """The known blocks of a network in its order, and their parts.

    Raises:
        UnsupportedBackboneError: it has none.
    """
    loaded = sys.modules.get("diffusers.models.attention")  # whoever has one of its networks has imported it
    known = {"DiTBlock": DiTBlock, "BasicTransformerBlock": getattr(loaded, "BasicTransformerBlock", ())}
    found: list[tuple[nn.Module, dict[Part, nn.Module]]] = []
    # A U-Net names its middle after the way up, which runs last.
    for _, module in sorted(network.named_modules(), key=lambda named: named[0].startswith("up_blocks")):
        for name, kind in known.items():
            if isinstance(module, kind):
                parts = {part: getattr(module, each, None) for part, each in PARTS[name].items()}
                found.append((module, {part: each for part, each in parts.items() if each is not None}))
    if not found:
        rows = [each[0] for each in network.modules() if isinstance(each, nn.ModuleList) and len(each)]
        names = ", ".join(sorted({type(each).__name__ for each in rows})) or "none at all"
        hint = "" if loaded else " (diffusers is not loaded; it comes with tokenmark[diffusion])"
        raise UnsupportedBackboneError(
            f"{type(network).__name__} has no blocks whose tokens can be reduced while it samples: it has {names}, and"
            f" known are {' and '.join(PARTS)}{hint}"
        )
    return found


class _Attached:
    """A hook at work in one network: what is known of the run, of the call and of the block."""

    def __init__(self, hook: TokenHook, blocks: int, patch: int) -> None:
        self.hook, self.blocks, self.patch = hook, blocks, patch
        self.run: tuple[tuple[int, ...], int] | None = None
        self.calls = 0
        self.call: Call | None = None
        self.before: Tensor | None = None
        self.mergings: dict[int, Merging | None] = {}

    def begin(self, seeds: Sequence[int], steps: int) -> None:
        self.run, self.calls, self.before = (tuple(seeds), steps), 0, None

    def sampling(self, generator: Any) -> Callable[..., Tensor]:
        sample: Callable[..., Tensor] = generator.sample

        def begun(labels: Tensor, generators: Sequence[torch.Generator], settings: Any, prompts: Any = None) -> Tensor:
            """As the generator's own; the run's randomness is drawn by seeds of the images' generators."""
            self.begin([each.initial_seed() for each in generators], generator.steps(settings))
            return sample(labels, generators, settings, prompts)

        return begun

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def called(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = _first(args, kwargs)
        if self.run is None:
            raise MethodError("a reduced network must be told of its run: call begin(network, seeds, steps) before it")
        seeds, steps = self.run
        if self.calls >= steps:
            raise MethodError(f"the run was to have {steps} calls of the network, and this is one more: begin the next")
        if len(x) not in (len(seeds), 2 * len(seeds)):
            raise MethodError(f"the run is of {len(seeds)} images: the network takes them once or twice, not {len(x)}")
        self.call = Call(
            step=self.calls,
            steps=steps,
            seeds=seeds,
            halves=1 if len(x) == len(seeds) else 2,
            channels=x.shape[1],
            patch=self.patch,
            grid=(-(-x.shape[2] // self.patch), -(-x.shape[3] // self.patch)),
            device=x.device,
            before=self.before,
        )
        self.calls += 1
        self.hook.begin(self.call)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def returned(self, _: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        given = output if isinstance(output, Tensor) else output[0]
        self.before = self.hook.finish(given)
        self.mergings.clear()
        if isinstance(output, Tensor):
            return self.before
        return (self.before, *output[1:]) if isinstance(output, tuple) else replace(output, sample=self.before)

    def entering(self, index: int) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        @torch.compiler.disable  # type: ignore[untyped-decorator]
        def enters(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = _first(args, kwargs)
            self.mergings[index] = self.hook.merge(x, self._place(index, x)) if self.hook.parts else None

        return enters  # type: ignore[no-any-return]

    def _place(self, index: int, x: Tensor) -> Place:
        if self.call is None:
            raise UnsupportedBackboneError(f"block {index} runs before its network is called: there is no step to tell")
        rows, columns = self.call.grid
        smaller = math.ceil(math.sqrt(rows * columns // x.shape[1]))
        grid = layer_grid((rows, columns), x.shape[1], smaller) if smaller else None
        if grid is None or grid[0] * grid[1] != x.shape[1]:
            raise UnsupportedBackboneError(f"block {index} has {x.shape[1]} tokens: no grid of {rows} x {columns}")
        return Place(index, self.blocks, grid, smaller, x.shape[2])

    def around(self, index: int, part: Part, module: Any) -> Callable[..., Tensor]:
        run: Callable[..., Tensor] = module.forward

        @torch.compiler.disable  # type: ignore[untyped-decorator]
        def runs(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            merging = self.mergings.get(index)
            if merging is None:
                return run(x, *args, **kwargs)
            if part == "attention" and any(kwargs.get(name) is not None for name in ("attn_mask", "attention_mask")):
                raise UnsupportedBackboneError(f"block {index} masks its attention: its tokens cannot be reduced")
            if part != "attention" or merging.recall is None:
                return merging.unmerge(run(merging.merge(x), *args, **kwargs))
            if hasattr(module, "qkv"):
                return merging.unmerge(asked_of_all(module, merging.merge(x), merging.recall))
            with recalling(module, merging.recall):
                return merging.unmerge(run(merging.merge(x), *args, **kwargs))

        return runs  # type: ignore[no-any-return]


def _first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """What a network or a block is called with first, whatever its name."""
    x: Tensor = args[0] if args else next(iter(kwargs.values()))
    return x


def _on_the_same_weights(network: N) -> N:
    """A copy of all modules, with the tensors, and the modules that are bound and not part, of the given one."""
    memo: dict[int, Any] = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    for module in network.modules():
        for value in vars(module).values():
            if isinstance(value, tuple):
                memo.update({id(each): each for each in value if isinstance(each, nn.Module)})
    return copy.deepcopy(network, memo)
