"""Super token attention (Huang et al., "Vision Transformer with Super Token Sampling", CVPR 2023, section 3.2).

Feature maps are `(B, C, H, W)`.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, conv_transpose2d, pad, scaled_dot_product_attention

__all__ = ["SuperTokenAttention"]


class Surroundings(nn.Module):
    """The 3 x 3 places around every place of a map, zeros beyond its edges; its constant is in checkpoints."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weights", torch.eye(9).reshape(9, 1, 3, 3))


class Unfold(Surroundings):
    """Gather."""

    def forward(self, x: Tensor) -> Tensor:
        """From `(B, C, H, W)` to `(B, C, 9, H, W)`."""
        batch, channels, height, width = x.shape
        found = conv2d(x.reshape(-1, 1, height, width), self.get_buffer("weights"), padding=1)
        return found.reshape(batch, channels, 9, height, width)


class Fold(Surroundings):
    """Scatter, summing what comes to one place; what goes beyond the edges is lost."""

    def forward(self, x: Tensor) -> Tensor:
        """From `(B, C, 9, H, W)` to `(B, C, H, W)`."""
        batch, channels, _, height, width = x.shape
        found = conv_transpose2d(x.reshape(-1, 9, height, width), self.get_buffer("weights"), padding=1)
        return found.reshape(batch, channels, height, width)


class MapAttention(nn.Module):
    """Self-attention among all places of a map."""

    def __init__(self, width: int, heads: int, *, qkv_bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Conv2d(width, 3 * width, 1, bias=qkv_bias)
        self.proj = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Of a map `(B, C, H, W)` the attention's output."""
        split = self.qkv(x).flatten(2).unflatten(1, (self.heads, 3, -1))
        q, k, v = split.permute(2, 0, 1, 4, 3).unbind(0)
        out: Tensor = self.proj(scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(x.shape))
        return out


class SuperTokenAttention(nn.Module):
    """Sample super tokens, let them attend to each other, and map them back onto the pixels.

    A super token begins as the mean of `cell` x `cell` pixels. A pixel belongs to the nine super tokens around it, by
    the softmax of their scaled products; those beyond the map's edge are zero vectors, and take their share.
    Of a map that cells do not tile, the missing pixels are zeros, and count as pixels. With `cell` 1 every pixel is
    its own super token, and only the attention is left.
    """

    def __init__(self, width: int, cell: int, iterations: int, heads: int, *, qkv_bias: bool) -> None:
        super().__init__()
        self.cell, self.iterations, self.scale = cell, iterations, width**-0.5
        self.unfold, self.fold = Unfold(), Fold()
        self.stoken_refine = MapAttention(width, heads, qkv_bias=qkv_bias)

    def forward(self, x: Tensor) -> Tensor:
        """Of a map `(B, C, H, W)` the attention's output."""
        if self.cell == 1:
            out: Tensor = self.stoken_refine(x)
            return out
        height, width = x.shape[2:]
        x = pad(x, (0, -width % self.cell, 0, -height % self.cell))
        pixels = self._cells(x)
        tokens = avg_pool2d(x, self.cell)
        shares = self._shares(pixels, tokens)
        for _ in range(self.iterations - 1):
            shares = self._shares(pixels, self._sampled(pixels, shares))
        refined = self.stoken_refine(self._sampled(pixels, shares))
        back = torch.einsum("bckhw,bpkhw->bcphw", self.unfold(refined), shares)
        return self._map(back)[:, :, :height, :width]

    def _cells(self, x: Tensor) -> Tensor:
        """The pixels of every cell, `(B, C, pixels, rows of cells, columns of cells)`."""
        x = x.unflatten(3, (-1, self.cell)).unflatten(2, (-1, self.cell))
        return x.permute(0, 1, 3, 5, 2, 4).flatten(2, 3)

    def _map(self, cells: Tensor) -> Tensor:
        """Undo `_cells`."""
        cells = cells.unflatten(2, (self.cell, self.cell)).permute(0, 1, 4, 2, 5, 3)
        return cells.flatten(4, 5).flatten(2, 3)

    def _shares(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        """How far every pixel belongs to each of the nine super tokens around it, `(B, pixels, 9, rows, columns)`."""
        return torch.einsum("bcphw,bckhw->bpkhw", pixels * self.scale, self.unfold(tokens)).softmax(dim=2)

    def _sampled(self, pixels: Tensor, shares: Tensor) -> Tensor:
        """The super tokens: means of the pixels by their shares, `(B, C, rows, columns)` (equation 5)."""
        summed = self.fold(torch.einsum("bcphw,bpkhw->bckhw", pixels, shares))
        out: Tensor = summed / (self.fold(shares.sum(dim=1, keepdim=True)) + 1e-12)
        return out
