"""Llama's transformer over a class and a grid of tokens, as LlamaGen has it (arXiv 2406.06525) and ELM takes it."""

from collections.abc import Callable, Sequence
from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.class_generator import Watch
from reference_impls.layers.code_generator import CodeGenerator
from reference_impls.layers.larp_priors import FeedForward
from reference_impls.layers.precision import at_least_float32
from tokenmark.contracts import MethodError

__all__ = ["GridGpt", "KeptPairs", "grid_rotation"]


class KeptPairs:
    """Keys and values of one layer at the positions so far, `(B, H, length, d)` each."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.pairs: list[Tensor] = []

    def extended(self, key: Tensor, value: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """All pairs up to the given ones, which lie at positions from `start` on and are kept."""
        if not self.pairs:
            # Made here, in the type that is computed in: under autocast that is not the weights'.
            self.pairs = [new.new_zeros(*new.shape[:2], self.length, new.shape[3]) for new in (key, value)]
        end = start + key.shape[2]
        for held, new in zip(self.pairs, (key, value), strict=True):
            held[:, :, start:end] = new
        return self.pairs[0][:, :, :end], self.pairs[1][:, :, :end]

    def first(self, count: int) -> None:
        """Forget all images but the first `count`."""
        self.pairs = [held[:count] for held in self.pairs]


def grid_rotation(side: int, channels: int, base: float, device: torch.device) -> Tensor:
    """Cosines and sines `(1 + side^2, channels / 2, 2)`, float64, of a class and a grid behind it, row by row.

    The first half of the pairs turns with the row, the second with the column.
    """
    pairs = channels // 4
    frequencies = base ** -(torch.arange(pairs, dtype=torch.float64, device=device) / pairs)
    angles = torch.arange(side, dtype=torch.float64, device=device)[:, None] * frequencies
    rows, columns = angles[:, None].expand(-1, side, -1), angles[None].expand(side, -1, -1)
    grid = torch.cat([rows, columns], dim=-1).flatten(0, 1)
    table = torch.stack([grid.cos(), grid.sin()], dim=-1)
    # Quirk of the releases: the class has zeros, and no cosine of 1. Its query and its key are therefore nothing,
    # and the score of every token on it is 0.
    return torch.cat([table.new_zeros(1, *table.shape[1:]), table])


def rotated(x: Tensor, rotation: Tensor) -> Tensor:
    """`(B, H, L, d)`, of which neighbouring channels are a pair, turned by `(L, d / 2, 2)`."""
    first, second = at_least_float32(x).unflatten(3, (-1, 2)).unbind(-1)
    cosine, sine = rotation.unbind(-1)
    turned = torch.stack([first * cosine - second * sine, second * cosine + first * sine], dim=-1)
    return turned.flatten(3).to(x.dtype)


class GridAttention(nn.Module):
    """Self-attention without biases, with rotary positions."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.wqkv = nn.Linear(dim, 3 * dim, bias=False)
        self.wo = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, rotation: Tensor, *, causal: bool, start: int, kept: KeptPairs | None) -> Tensor:
        """`(B, L, D)` at positions from `start` on, to the same shape; `kept` holds what is before."""
        query, key, value = self.wqkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key = rotated(query, rotation), rotated(key, rotation)
        if kept is not None:
            key, value = kept.extended(key, value, start)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=causal)
        out: Tensor = self.wo(mixed.transpose(1, 2).flatten(2))
        return out


class GridBlock(nn.Module):
    """Pre-norm residual block: attention and SwiGLU."""

    def __init__(self, dim: int, heads: int, multiple_of: int) -> None:
        super().__init__()
        self.attention = GridAttention(dim, heads)
        self.feed_forward = FeedForward(dim, multiple_of)
        self.attention_norm, self.ffn_norm = nn.RMSNorm(dim, eps=1e-5), nn.RMSNorm(dim, eps=1e-5)

    def forward(self, x: Tensor, rotation: Tensor, *, causal: bool, start: int, kept: KeptPairs | None) -> Tensor:
        """`(B, L, D)` to the same shape."""
        x = x + self.attention(self.attention_norm(x), rotation, causal=causal, start=start, kept=kept)
        out: Tensor = x + self.feed_forward(self.ffn_norm(x))
        return out


class GridGpt(CodeGenerator):
    """The class embedding, the blocks and the norm behind them; what reads and writes tokens a subclass adds.

    Args:
        dim: Width.
        n_layer: Blocks.
        n_head: Attention heads.
        block_size: Tokens of an image: a square number.
        num_classes: Number of classes.
        multiple_of: What the hidden width of the MLPs is rounded up to.
        rope_base: Of the rotary frequencies.
    """

    causal = True

    def __init__(
        self,
        *,
        dim: int,
        n_layer: int,
        n_head: int,
        block_size: int,
        num_classes: int,
        multiple_of: int = 256,
        rope_base: float = 10000.0,
    ) -> None:
        super().__init__()
        if isqrt(block_size) ** 2 != block_size:
            raise MethodError(f"block_size must be a square number, got {block_size}")
        if dim % (4 * n_head):
            raise MethodError(f"dim must be a multiple of 4 per head, got {dim} for {n_head} heads")
        self.length, self.classes, self.rope_base, self.channels = block_size, num_classes, rope_base, dim // n_head
        self.cls_embedding = nn.ModuleDict({"embedding_table": nn.Embedding(num_classes + 1, dim)})
        self.layers = nn.ModuleList(GridBlock(dim, n_head, multiple_of) for _ in range(n_layer))
        self.norm = nn.RMSNorm(dim, eps=1e-5)

    def steps(self, settings: Any) -> int:  # noqa: ARG002  whatever is asked for, a token is written at a time
        """How often the network is called for a batch: once for every token."""
        return self.length

    def embedded(self, codes: Tensor) -> Tensor:
        """Codes `(B, n, ...)` as rows `(B, n, D)`."""
        raise NotImplementedError

    def scores(self, hidden: Tensor) -> Tensor:
        """Logits `(B, n, ..., K)` of normed rows `(B, n, D)`."""
        raise NotImplementedError

    def rotation(self) -> Tensor:
        """Cosines and sines of all positions `(1 + L, d / 2, 2)`, in float32 at least."""
        table = grid_rotation(isqrt(self.length), self.channels, self.rope_base, self.place)
        return table.to(at_least_float32(self.norm.weight).dtype)

    def classes_embedded(self, labels: Tensor) -> Tensor:
        """`(B, 1, D)` for classes `(B,)`, of which `classes` is the dropped one."""
        rows: Tensor = self.cls_embedding["embedding_table"](labels)[:, None]
        return rows

    def hidden(self, x: Tensor, rotation: Tensor, start: int = 0, kept: Sequence[KeptPairs] | None = None) -> Tensor:
        """`(B, n, D)` through all blocks and the norm, at positions from `start` on, to which `rotation` belongs."""
        causal = self.causal and kept is None
        for index, layer in enumerate(self.layers):
            x = layer(x, rotation, causal=causal, start=start, kept=None if kept is None else kept[index])
        out: Tensor = self.norm(x)
        return out

    def logits(self, codes: Tensor, labels: Tensor) -> Tensor:
        """Logits `(B, 1 + n, ..., K)` at the class and at each of `codes` `(B, n, ...)`, all at once."""
        x = torch.cat([self.classes_embedded(labels), self.embedded(codes)], dim=1)
        return self.scores(self.hidden(x, self.rotation()[: x.shape[1]]))

    def write(
        self, labels: Tensor, scales: Sequence[float], choose: Callable[[Tensor, int], Tensor], watch: Watch
    ) -> Tensor:
        """Codes `(B, L, ...)`, one position after the other.

        Args:
            labels: `(B,)`.
            scales: The s of `uncond + s (cond - uncond)` at every position; where it is 1 there is no guidance.
            choose: Takes guided logits `(B, ..., K)` and the position, and gives codes `(B, ...)`.
            watch: Sees those logits.
        """
        batch, rotation = len(labels), self.rotation()
        kept = [KeptPairs(self.length) for _ in self.layers]
        guided = max((step + 1 for step, scale in enumerate(scales) if scale != 1.0), default=0)
        x = self.classes_embedded(torch.cat([labels, torch.full_like(labels, self.classes)]) if guided else labels)
        codes: list[Tensor] = []
        for step, scale in enumerate(scales):
            logits = at_least_float32(self.scores(self.hidden(x, rotation[step : step + 1], step, kept))[:, 0])
            if scale != 1.0:
                conditional, unconditional = logits.chunk(2)
                logits = unconditional + scale * (conditional - unconditional)
            codes.append(choose(watch.see(logits[:batch]), step))
            x = self.embedded(codes[-1][:, None])
            if step + 1 < guided:
                x = x.repeat(2, 1, 1)
            elif step + 1 == guided:
                for layer in kept:
                    layer.first(batch)
        return torch.stack(codes, dim=1)
