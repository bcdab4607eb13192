"""Self-attention of a block in pieces: fused or eager, with token sizes and places, and with what a method may see."""

import math
from dataclasses import dataclass

import torch
from timm.layers.pos_embed_sincos import apply_rot_embed_cat
from torch import Tensor
from torch.nn.functional import dropout, pad, scaled_dot_product_attention

from reference_impls.layers.families.base import AttentionView
from reference_impls.layers.vit_backbone import AttentionKind

__all__ = ["Attended", "Looks", "attend", "attention_logits", "mix", "project", "wide"]


@dataclass(frozen=True)
class Looks:
    """What attention knows of the tokens beside their channels; all of it may be absent."""

    size: Tensor | None = None
    """`(B, N)`: log(size of the key's token) is added to every logit, so that a merged token counts as the tokens
    that it stands for (ToMe, eq. 1)."""
    rotary: Tensor | None = None
    """`(B or 1, heads or 1, N, 2 D)`, by which queries and keys are turned."""
    rotate_half: bool = False
    bias: Tensor | None = None
    """`(B or 1, heads or 1, N, N)`, added to the logits; -inf bars a key."""


@dataclass(frozen=True)
class Attended:
    """What one block's attention shows to a method; nothing is computed before it is asked for.

    `queries`, `keys` and `values` are `(B, heads, N, D)` as they enter the dot product (after qk-norm and rotation).
    """

    queries: Tensor
    keys: Tensor
    values: Tensor
    scale: float
    size: Tensor | None
    """`(B, N)`, the token sizes that entered the attention; None where it was not proportional."""
    rows: Tensor | None
    """The softmaxed attention `(B, heads, N, N)` where it was written out; None under fused attention."""
    bias: Tensor | None = None
    """`(B or 1, heads or 1, N, N)`, what was added to the logits beside the sizes."""

    def class_row(self) -> Tensor:
        """The attention that token 0 pays to every token, `(B, heads, N)`; only this row is computed.

        In float32 or wider, as is `received`: in bfloat16 many scores would tie.
        """
        if self.rows is not None:
            return self.rows[:, :, 0].to(wide(self.rows))
        bias = None if self.bias is None else self.bias[:, :, :1]
        first = self.queries[:, :, :1]
        return _softmax_rows(first, self.keys, self.scale, self.size, bias, wide(self.keys)).squeeze(2)

    def all_rows(self) -> Tensor:
        """The softmaxed attention `(B, heads, N, N)`, computed again under fused attention."""
        if self.rows is not None:
            return self.rows
        return _softmax_rows(self.queries, self.keys, self.scale, self.size, self.bias)

    def received(self) -> Tensor:
        """The attention that every token receives, summed over heads and queries: `(B, N)`."""
        rows = self.all_rows()
        return rows.sum(dim=(1, 2), dtype=wide(rows))


def wide(x: Tensor) -> torch.dtype:
    """The type of `x`, float32 at least: for what is ranked or counted, whatever the model runs in."""
    return torch.promote_types(x.dtype, torch.float32)


def attend(attention: AttentionView, x: Tensor, looks: Looks, kind: AttentionKind) -> tuple[Tensor, Attended]:
    """Run a block's self-attention on its normed tokens `x` `(B, N, C)`: the output `(B, N, C)`, and what it saw."""
    q, k, v = project(attention, x, looks)
    mixed, rows = mix(attention, (q, k, v), looks.size, looks.bias, kind)
    return attention.join(mixed, x), Attended(q, k, v, attention.scale, looks.size, rows, looks.bias)


def mix(
    attention: AttentionView,
    parts: tuple[Tensor, Tensor, Tensor],
    size: Tensor | None,
    bias: Tensor | None,
    kind: AttentionKind,
) -> tuple[Tensor, Tensor | None]:
    """The values mixed by attention, `(B, heads, N, D)`, of queries, keys and values; and its rows where written out.

    For methods that change what enters the dot product, or who sees whom.
    """
    q, k, v = parts
    scale, drop = attention.scale, attention.dropout
    if kind == "eager":
        rows = _softmax_rows(q, k, scale, size, bias)
        return dropout(rows.to(v.dtype), drop, drop > 0.0) @ v, rows
    # A bias has to be written out anyway, and takes the sizes along; a processor's kernel takes a mask without loss.
    if bias is not None or (size is not None and q.device.type == "cpu"):
        mask = _mask(size, bias).to(q.dtype)
        return scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=drop, scale=scale), None
    if size is not None:
        wider = with_size_channels(q, k, v, size, scale)
        return scaled_dot_product_attention(*wider, dropout_p=drop, scale=scale)[..., : v.shape[-1]], None
    return scaled_dot_product_attention(q, k, v, dropout_p=drop, scale=scale), None


def _mask(size: Tensor | None, bias: Tensor | None) -> Tensor:
    """What is added to the logits, of which one may be missing."""
    logs = 0.0 if size is None else size.log()[:, None, None, :]
    found: Tensor = logs + (0.0 if bias is None else bias)  # type: ignore[assignment]
    return found


def project(attention: AttentionView, x: Tensor, looks: Looks) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of normed tokens `x` as they enter the dot product, each `(B, heads, N, D)`."""
    q, k, v = attention.split(x)
    if looks.rotary is not None:
        q, k = (apply_rot_embed_cat(each, looks.rotary, half=looks.rotate_half).to(v.dtype) for each in (q, k))
    return q, k, v


def attention_logits(q: Tensor, k: Tensor, scale: float, size: Tensor | None, bias: Tensor | None) -> Tensor:
    """What enters the softmax, `(B, heads, queries, keys)`; for methods with a softmax of their own."""
    logits = (q * scale) @ k.transpose(-2, -1)
    if bias is not None:
        logits = logits + bias
    if size is not None:
        logits = logits + size.log()[:, None, None, :]
    return logits


def _softmax_rows(
    q: Tensor, k: Tensor, scale: float, size: Tensor | None, bias: Tensor | None, dtype: torch.dtype | None = None
) -> Tensor:
    return attention_logits(q, k, scale, size, bias).softmax(dim=-1, dtype=dtype)


def with_size_channels(q: Tensor, k: Tensor, v: Tensor, size: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
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
