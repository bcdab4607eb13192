"""Stable Diffusion 3's blocks with one stream for text and one for the image (arXiv 2403.03206, section 4).

They are built as the diffusers library stores them, each projection of attention by itself; JOINT has its names.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.dit_blocks import EPS, modulate, modulation
from reference_impls.layers.mmdit import gelu_mlp

__all__ = ["JOINT", "JointBlock", "ScaledNorm"]

JOINT = (
    (r"(^|\.)((?:decoder_)?norm\d?(?:_context)?)\.linear\.", r"\1\2.made.1."),
    (r"\.(ff|ff_context)\.net\.0\.proj\.", r".\1.fc1."),
    (r"\.(ff|ff_context)\.net\.2\.", r".\1.fc2."),
    (r"\.attn\.to_out\.0\.", ".attn.to_out."),
)
"""The library's keys to ours."""


class ScaledNorm(nn.Module):
    """A norm that a condition scales and shifts, in this order.

    Args:
        width: Channels of tokens and condition.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.made = modulation(width, 2)
        self.plain = nn.LayerNorm(width, eps=EPS, elementwise_affine=False)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Tokens `(B, L, D)` and conditions `(B, D)` to tokens."""
        scale, shift = self.made(condition).chunk(2, dim=1)
        return modulate(self.plain(x), shift, scale)


class GatedNorm(nn.Module):
    """A norm that a condition shifts and scales, and the rest of what the condition says about a block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.made = modulation(width, 6)
        self.plain = nn.LayerNorm(width, eps=EPS, elementwise_affine=False)

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Tokens, and gate, shift, scale and gate `(B, 1, D)` of what follows."""
        shift, scale, *rest = self.made(condition).chunk(6, dim=1)
        return modulate(self.plain(x), shift, scale), tuple(part.unsqueeze(1) for part in rest)


class JointAttention(nn.Module):
    """Both streams attend to both; each has projections of its own.

    Args:
        width: Channels of either.
        heads: Attention heads.
        last: Whether the text ends here: its queries remain in the checkpoint, without use.
    """

    def __init__(self, width: int, heads: int, *, last: bool) -> None:
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.add_k_proj, self.add_v_proj, self.add_q_proj = (nn.Linear(width, width) for _ in range(3))
        self.to_out = nn.Linear(width, width)
        self.to_add_out = None if last else nn.Linear(width, width)

    def forward(self, x: Tensor, text: Tensor) -> tuple[Tensor, Tensor | None]:
        """Tokens `(B, L, D)` and text `(B, T, D)`; None for a text that ends here."""
        key = self._split(self.to_k(x), self.add_k_proj(text))
        value = self._split(self.to_v(x), self.add_v_proj(text))
        if self.to_add_out is None:
            return self.to_out(self._mixed(self._split(self.to_q(x)), key, value)), None
        mixed = self._mixed(self._split(self.to_q(x), self.add_q_proj(text)), key, value)
        of_image, of_text = mixed.split([x.shape[1], text.shape[1]], dim=1)
        return self.to_out(of_image), self.to_add_out(of_text)

    def _split(self, *streams: Tensor) -> Tensor:
        split: Tensor = torch.cat(streams, dim=1).unflatten(2, (self.heads, -1))
        return split.transpose(1, 2)

    @staticmethod
    def _mixed(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


class JointBlock(nn.Module):
    """Text and image, attending together, then each through an MLP of its own.

    Args:
        width: Channels of both streams and of the condition.
        heads: Attention heads.
        last: Whether the text ends here.
    """

    def __init__(self, width: int, heads: int, *, last: bool) -> None:
        super().__init__()
        self.norm1 = GatedNorm(width)
        self.norm1_context = ScaledNorm(width) if last else GatedNorm(width)
        self.attn = JointAttention(width, heads, last=last)
        self.norm2 = nn.LayerNorm(width, eps=EPS, elementwise_affine=False)
        self.ff = gelu_mlp(width)
        self.ff_context = None if last else gelu_mlp(width)

    def forward(self, x: Tensor, text: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens `(B, L, D)`, text `(B, T, D)` and conditions `(B, D)` to tokens and text."""
        normed, parts = self.norm1(x, condition)
        told = self.norm1_context(text, condition)
        if self.ff_context is None:
            mixed, _ = self.attn(normed, told)
            return self._finish(x, mixed, parts, self.ff), text
        mixed, mixed_text = self.attn(normed, told[0])
        return self._finish(x, mixed, parts, self.ff), self._finish(text, mixed_text, told[1], self.ff_context)

    def _finish(self, x: Tensor, mixed: Tensor, parts: tuple[Tensor, ...], mlp: nn.Module) -> Tensor:
        gate1, shift2, scale2, gate2 = parts
        x = x + gate1 * mixed
        out: Tensor = x + gate2 * mlp(self.norm2(x) * (1.0 + scale2) + shift2)
        return out
