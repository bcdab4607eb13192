"""What a call of a DiT costs under a hook, told without running it."""

from typing import Any

from reference_impls.generators.dit import DiT
from reference_impls.layers.sampler_hook import STATE, Place, Seen, blocks_of
from tokenmark.contracts import UnsupportedBackboneError

__all__ = ["call_macs"]


def call_macs(network: DiT, step: int, steps: int) -> int:
    """Multiply-accumulates of one image, of one half, in a call of a DiT, reduced or not.

    Counted: convolutions, linear layers, matrix products, attention, the hook's own products and distances; not:
    norms, softmax, biases, activations.

    Raises:
        UnsupportedBackboneError: it is no DiT.
    """
    if not isinstance(network, DiT):
        raise UnsupportedBackboneError(f"the cost of a {type(network).__name__} is counted by running it, not told")
    attached: Any = getattr(network, STATE, None)
    width, tokens = network.pos_embed.shape[2], network.grid**2
    features = network.t_embedder.features
    patch = network.channels * network.patch_size**2
    total = tokens * patch * width + features * width + width * width
    blocks = blocks_of(network)
    block: Any
    for index, (block, _) in enumerate(blocks):
        place = Place(index, len(blocks), (network.grid, network.grid), 1, width)
        seen = attached.hook.seen(place, step, steps) if attached else Seen(tokens, tokens)
        parts = attached.hook.parts if attached else frozenset()
        asking, keys = (seen.computed, seen.keys) if "attention" in parts else (tokens, tokens)
        fed = seen.computed if "mlp" in parts else tokens
        hidden: int = block.mlp.fc1.out_features
        total += 6 * width * width + 4 * asking * width * width + 2 * asking * keys * width
        total += 2 * fed * width * hidden + seen.macs
    return total + 2 * width * width + tokens * width * 2 * patch
