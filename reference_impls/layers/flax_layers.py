"""Layers whose weights lie as flax lays them out, for releases in JAX: a kernel's outputs are its last dimensions."""

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["FlaxConv", "FlaxDense", "FlaxMlp"]


class FlaxDense(nn.Module):
    """A linear layer from one group of dimensions to another; its kernel is `(*inner, *outer)`."""

    def __init__(self, inner: tuple[int, ...], outer: tuple[int, ...]) -> None:
        super().__init__()
        self.inner, self.outer = inner, outer
        self.kernel = nn.Parameter(torch.empty(*inner, *outer))
        self.bias = nn.Parameter(torch.zeros(outer))
        bound = math.sqrt(6.0 / (math.prod(inner) + math.prod(outer)))  # Glorot's, of the matrix that it is
        nn.init.uniform_(self.kernel, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """`(..., *inner)` to `(..., *outer)`."""
        matrix = self.kernel.reshape(math.prod(self.inner), math.prod(self.outer))
        out = functional.linear(x.flatten(x.ndim - len(self.inner)), matrix.t(), self.bias.flatten())
        return cast("Tensor", out.unflatten(-1, self.outer))


class FlaxConv(nn.Module):
    """A convolution whose kernel is `(height, width, in, out)`; images stay `(B, C, H, W)`."""

    def __init__(self, channels: int, out: int, size: int, *, stride: int = 1, padding: int = 0, bias: bool) -> None:
        super().__init__()
        self.stride, self.padding = stride, padding
        self.kernel = nn.Parameter(torch.empty(size, size, channels, out))
        self.bias = nn.Parameter(torch.zeros(out)) if bias else None
        nn.init.trunc_normal_(self.kernel, std=1.0 / math.sqrt(size * size * channels))

    def forward(self, x: Tensor) -> Tensor:
        """`(B, in, H, W)` to `(B, out, H', W')`."""
        return functional.conv2d(x, self.kernel.permute(3, 2, 0, 1), self.bias, self.stride, self.padding)


class FlaxMlp(nn.Module):
    """Two linear layers with flax's GELU between, which is the one by tanh."""

    def __init__(self, width: int, hidden: int, out: int) -> None:
        super().__init__()
        self.fc1 = FlaxDense((width,), (hidden,))
        self.fc2 = FlaxDense((hidden,), (out,))

    def forward(self, x: Tensor) -> Tensor:
        """`(..., width)` to `(..., out)`."""
        return cast("Tensor", self.fc2(functional.gelu(self.fc1(x), approximate="tanh")))
