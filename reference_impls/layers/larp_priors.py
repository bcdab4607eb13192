"""The two autoregressive transformers of LARP (arXiv 2410.21264): the prior it is trained with, and its generator."""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.video_vit import line_sincos

__all__ = ["LarpAr", "LarpPrior"]

Cache: TypeAlias = list[Tensor]
"""Keys and values of one layer for all positions, `(B, H, L, d)` each."""


def _heads(x: Tensor, heads: int) -> Tensor:
    """`(B, L, D)` to `(B, H, L, D / H)`."""
    return x.reshape(*x.shape[:2], heads, x.shape[2] // heads).transpose(1, 2)


class PriorAttention(nn.Module):
    """Causal self-attention with four projections."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.key, self.query, self.value, self.proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """`(B, L, D)` to the same shape."""
        query, key, value = (_heads(project(x), self.heads) for project in (self.query, self.key, self.value))
        # Quirk of the release: its dropout on these weights is never switched off; here there is none.
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return out


class PriorBlock(nn.Module):
    """Pre-norm residual block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = PriorAttention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """`(B, L, D)` to the same shape."""
        x = x + self.attn(self.ln1(x))
        out: Tensor = x + self.mlp(self.ln2(x))
        return out


class LarpPrior(nn.Module):
    """Predicts the next code's vector from those before it: in training only, and in the checkpoint (section 3.3).

    Args:
        channels: Channels of a code.
        width: Channels inside.
        depth: Number of blocks.
        heads: Attention heads.
        length: The most codes.
    """

    def __init__(self, channels: int, *, width: int, depth: int, heads: int, length: int) -> None:
        super().__init__()
        self.pos_emb = nn.Parameter(0.02 * torch.randn(1, length, width))
        self.input_proj = nn.Linear(channels, width)
        self.blocks = nn.Sequential(*(PriorBlock(width, heads) for _ in range(depth)))
        self.ln_f = nn.LayerNorm(width)
        self.head = nn.Linear(width, channels)

    def forward(self, rows: Tensor) -> Tensor:
        """Codes' vectors `(B, N, C)` to the first of them and N - 1 predictions, of length 1 each."""
        known = rows[:, :-1]
        hidden = self.blocks(self.input_proj(known) + self.pos_emb[:, : known.shape[1]])
        predicted = torch.cat([rows[:, :1], self.head(self.ln_f(hidden))], dim=1)
        return functional.normalize(predicted, dim=-1)


class ArAttention(nn.Module):
    """Causal self-attention without biases, which may keep keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.wqkv = nn.Linear(width, 3 * width, bias=False)
        self.wo = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, start: int, cache: Cache | None) -> Tensor:
        """`(B, L, D)` at positions from `start` on, to the same shape; `cache` holds what is before, and is filled."""
        query, key, value = (_heads(part, self.heads) for part in self.wqkv(x).chunk(3, dim=-1))
        if cache is not None:
            end = start + x.shape[1]
            cache[0][:, :, start:end], cache[1][:, :, start:end] = key, value
            key, value = cache[0][:, :, :end], cache[1][:, :, :end]
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=start == 0)
        out: Tensor = self.wo(mixed.transpose(1, 2).flatten(2))
        return out


class FeedForward(nn.Module):
    """SwiGLU of two thirds of four times the width, rounded up."""

    def __init__(self, width: int, multiple_of: int) -> None:
        super().__init__()
        hidden = -(-(8 * width // 3) // multiple_of) * multiple_of
        self.w1, self.w3 = (nn.Linear(width, hidden, bias=False) for _ in range(2))
        self.w2 = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, L, D)` to the same shape."""
        out: Tensor = self.w2(functional.silu(self.w1(x)) * self.w3(x))
        return out


class ArBlock(nn.Module):
    """Pre-norm residual block."""

    def __init__(self, width: int, heads: int, multiple_of: int) -> None:
        super().__init__()
        self.attention = ArAttention(width, heads)
        self.feed_forward = FeedForward(width, multiple_of)
        self.attention_norm, self.ffn_norm = nn.RMSNorm(width, eps=1e-5), nn.RMSNorm(width, eps=1e-5)

    def forward(self, x: Tensor, start: int, cache: Cache | None) -> Tensor:
        """`(B, L, D)` to the same shape."""
        x = x + self.attention(self.attention_norm(x), start, cache)
        out: Tensor = x + self.feed_forward(self.ffn_norm(x))
        return out


class LarpAr(nn.Module):
    """LARP's generator of codes (section 3.4): LlamaGen's transformer without rotary positions.

    Its condition is a class, or with `frame_prediction` the codes of the clip so far, with a separator behind them.

    Args:
        dim: Width.
        n_layer: Blocks.
        n_head: Attention heads.
        vocab_size: Number of codes.
        max_seq_len: Number of codes that it writes.
        cls_token_num: Length of the condition.
        num_classes: Number of classes.
        multiple_of: What the hidden width of the MLPs is rounded up to.
        use_fixed_pe: Keep positions fixed.
        frame_prediction: Take codes as the condition.
    """

    def __init__(
        self,
        *,
        dim: int,
        n_layer: int,
        n_head: int,
        vocab_size: int,
        max_seq_len: int,
        cls_token_num: int = 1,
        num_classes: int = 101,
        multiple_of: int = 256,
        use_fixed_pe: bool = False,
        frame_prediction: bool = False,
    ) -> None:
        super().__init__()
        self.heads, self.max_seq_len, self.cls_token_num = n_head, max_seq_len, cls_token_num
        self.num_classes, self.frame_prediction = num_classes, frame_prediction
        positions = max_seq_len + cls_token_num - 1
        if use_fixed_pe:
            self.register_buffer("abs_pe", line_sincos(dim, positions)[None])
        else:
            self.abs_pe = nn.Parameter(0.02 * torch.randn(1, positions, dim))
        # The separator is the last row, and the dropped class that of the classes.
        self.tok_embeddings = nn.Embedding(vocab_size + frame_prediction, dim)
        if not frame_prediction:
            self.cls_embedding = nn.ModuleDict({"embedding_table": nn.Embedding(num_classes + 1, dim)})
        self.layers = nn.ModuleList(ArBlock(dim, n_head, multiple_of) for _ in range(n_layer))
        self.norm = nn.RMSNorm(dim, eps=1e-5)
        self.output = nn.Linear(dim, vocab_size, bias=False)

    def forward(self, codes: Tensor, condition: Tensor) -> Tensor:
        """Logits for the code behind the condition and behind each of `codes` `(B, n)`.

        `condition` is int64 `(B,)`, where a class below 0 is none, or `(B, cls_token_num)`. With a class there is one
        row of logits for it, `(B, 1 + n, V)`; with frames, those of the condition but its last are left out.
        """
        embedded = torch.cat([self._condition(condition), self.tok_embeddings(codes)], dim=1)
        logits = self._logits(embedded, 0, None)
        return logits[:, self.cls_token_num - 1 :] if self.frame_prediction else logits

    @torch.no_grad()
    def generate(
        self,
        condition: Tensor,
        *,
        cfg_scale: float = 1.0,
        choose: Callable[[Tensor, int], Tensor] = lambda logits, _step: logits.argmax(-1),
    ) -> Tensor:
        """Codes `(B, max_seq_len)`, one after the other.

        `choose` takes guided logits `(B, V)` and the step, and gives codes `(B,)`: the likeliest by default. Guidance,
        `uncond + cfg_scale (cond - uncond)`, needs classes.
        """
        guided = cfg_scale != 1.0
        if guided:
            condition = torch.cat([condition, torch.full_like(condition, -1)])
        caches = self._caches(len(condition))
        embedded, start, codes = self._condition(condition), 0, []
        for step in range(self.max_seq_len):
            logits = self._logits(embedded, start, caches)[:, -1]
            if guided:
                conditional, unconditional = logits.chunk(2)
                logits = unconditional + cfg_scale * (conditional - unconditional)
            codes.append(choose(logits, step))
            start += embedded.shape[1]
            embedded = self.tok_embeddings(codes[-1][:, None]).repeat(2 if guided else 1, 1, 1)
        return torch.stack(codes, dim=1)

    def _condition(self, condition: Tensor) -> Tensor:
        if self.frame_prediction:
            embedded: Tensor = self.tok_embeddings(condition)
        else:
            classes = torch.where(condition < 0, self.num_classes, condition)
            embedded = self.cls_embedding["embedding_table"](classes)[:, None]
        return embedded

    def _caches(self, batch: int) -> list[Cache]:
        length, width = self.abs_pe.shape[1:]
        shape = (batch, self.heads, length, width // self.heads)
        return [[self.abs_pe.new_zeros(shape) for _ in range(2)] for _ in self.layers]

    def _logits(self, embedded: Tensor, start: int, caches: list[Cache] | None) -> Tensor:
        x = embedded + self.abs_pe[:, start : start + embedded.shape[1]]
        for index, layer in enumerate(self.layers):
            x = layer(x, start, None if caches is None else caches[index])
        logits: Tensor = self.output(self.norm(x))
        return logits
