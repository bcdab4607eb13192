"""Self-attention of a timm block in pieces: fused or eager, with token sizes, and with what a method may look at."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import dropout, pad, scaled_dot_product_attention

from reference_impls.layers.vit_backbone import Attention, AttentionKind


@dataclass(frozen=True)
class Attended:
    """What one block's attention shows to a method; nothing is computed before it is asked for.

    `queries`, `keys` and `values` are `(B, heads, N, D)` as they enter the dot product (after qk-norm).
    """

    queries: Tensor
    keys: Tensor
    values: Tensor
    scale: float
    size: Tensor | None
    """`(B, N)`, the token sizes that entered the attention; None where it was not proportional."""
    rows: Tensor | None
    """The softmaxed attention `(B, heads, N, N)` where it was written out; None under fused attention."""

    def class_row(self) -> Tensor:
        """The attention that token 0 pays to every token, `(B, heads, N)`; only this row is computed.

        In float32 or wider, as is `received`: in bfloat16 many scores would tie.
        """
        if self.rows is not None:
            return self.rows[:, :, 0].to(wide(self.rows))
        return _softmax_rows(self.queries[:, :, :1], self.keys, self.scale, self.size, wide(self.keys)).squeeze(2)

    def received(self) -> Tensor:
        """The attention that every token receives, summed over heads and queries: `(B, N)`."""
        rows = self.rows if self.rows is not None else _softmax_rows(self.queries, self.keys, self.scale, self.size)
        return rows.sum(dim=(1, 2), dtype=wide(rows))


def wide(x: Tensor) -> torch.dtype:
    """The type of `x`, float32 at least: for what is ranked or counted, whatever the model runs in."""
    return torch.promote_types(x.dtype, torch.float32)


def attend(attention: Attention, x: Tensor, size: Tensor | None, kind: AttentionKind) -> tuple[Tensor, Attended]:
    """Run timm's `Attention` on `x` `(B, N, C)`: its output `(B, N, C)`, and what it saw.

    With `size` `(B, N)` attention is proportional: log(size of the key's token) is added to every logit, so that a
    merged token counts as the tokens it stands for (ToMe, eq. 1).
    """
    batch, tokens, _ = x.shape
    parts = attention.qkv(x)
    width = parts.shape[2] // (3 * attention.num_heads)
    q, k, v = parts.reshape(batch, tokens, 3, attention.num_heads, width).permute(2, 0, 3, 1, 4).unbind(0)
    # qk-norm gives float32 under autocast: one type for all three, as a fused kernel demands.
    q, k = attention.q_norm(q).to(v.dtype), attention.k_norm(k).to(v.dtype)
    drop = attention.attn_drop.p if attention.training else 0.0
    rows = None
    if kind == "eager":
        rows = _softmax_rows(q, k, attention.scale, size)
        mixed = dropout(rows.to(v.dtype), drop, attention.training) @ v
    elif size is None:
        mixed = scaled_dot_product_attention(q, k, v, dropout_p=drop, scale=attention.scale)
    else:
        wider = _with_size_channels(q, k, v, size, attention.scale)
        mixed = scaled_dot_product_attention(*wider, dropout_p=drop, scale=attention.scale)[..., : v.shape[-1]]
    return _project(attention, x, mixed), Attended(q, k, v, attention.scale, size, rows)


def _project(attention: Attention, x: Tensor, mixed: Tensor) -> Tensor:
    """From the heads' outputs `(B, heads, N, D)` to the width of `x`: norm, gate and projection, where there are."""
    mixed = mixed.transpose(1, 2).flatten(2)
    # Both are younger than the oldest timm that is supported.
    norm, gate = getattr(attention, "norm", None), getattr(attention, "gate", None)
    if norm is not None:
        mixed = norm(mixed)
    if gate is not None:
        mixed = mixed * gate(x).sigmoid()
    out: Tensor = attention.proj_drop(attention.proj(mixed))
    return out


def _softmax_rows(q: Tensor, k: Tensor, scale: float, size: Tensor | None, dtype: torch.dtype | None = None) -> Tensor:
    logits = (q * scale) @ k.transpose(-2, -1)
    if size is not None:
        logits = logits + size.log()[:, None, None, :]
    return logits.softmax(dim=-1, dtype=dtype)


def _with_size_channels(q: Tensor, k: Tensor, v: Tensor, size: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """Carry log(size) in two more key channels, so that proportional attention needs no mask.

    A float mask would shut out the flash kernel. The query's side of both channels is a power of two, exact in any
    type; the key's side is the bias split into what the type holds and what is left, so that bfloat16 does not round
    the logarithm. Heads stay a multiple of 8 wide, and the values' new channels are zeros.
    """
    width, heads = q.shape[-1], q.shape[1]
    extra = 2 + (-(width + 2)) % 8
    unit = 2.0 ** round(-math.log2(scale))
    bias = size.log() / (scale * unit)
    high = bias.to(k.dtype)
    channels = pad(torch.stack((high, (bias - high).to(k.dtype)), dim=-1), (0, extra - 2))
    k = torch.cat((k, channels[:, None].expand(-1, heads, -1, -1)), dim=-1)
    return pad(pad(q, (0, 2), value=unit), (0, extra - 2)), k, pad(v, (0, extra))
