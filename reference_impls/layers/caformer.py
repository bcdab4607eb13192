"""CAFormer's parts (Yu et al., "MetaFormer Baselines for Vision", TPAMI 2024), channels last, its keys as there."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

__all__ = ["CaformerHead", "ConvBlock", "Downsampling", "ResScale", "SelfAttention", "StarMlp", "WithoutBias"]

EPS = 1e-6


class WithoutBias(nn.Module):
    """A layer norm over the last axis with a weight and no bias."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `(..., width)`."""
        return layer_norm(x, x.shape[-1:], self.weight, eps=EPS)


class StarReLU(nn.Module):
    """scale * relu(x) ** 2 + bias, both numbers learned."""

    def __init__(self) -> None:
        super().__init__()
        # At these values a standard normal input gives mean 0 and variance 1 (section 3.3).
        self.scale = nn.Parameter(torch.full((1,), 0.8944))
        self.bias = nn.Parameter(torch.full((1,), -0.4472))

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return self.scale * torch.relu(x) ** 2 + self.bias


class StarMlp(nn.Module):
    """Two linear layers without bias, four times as wide between, with StarReLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width, bias=False)
        self.act = StarReLU()
        self.fc2 = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`(..., width)` to the same."""
        return cast("Tensor", self.fc2(self.act(self.fc1(x))))


class SeparableConv(nn.Module):
    """An inverted separable convolution, twice as wide inside; the kernel is 7 pixels wide."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pwconv1 = nn.Linear(width, 2 * width, bias=False)
        self.act1 = StarReLU()
        self.dwconv = nn.Conv2d(2 * width, 2 * width, 7, padding=3, groups=2 * width, bias=False)
        self.pwconv2 = nn.Linear(2 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, H, W, width)` to the same."""
        x = self.act1(self.pwconv1(x)).permute(0, 3, 1, 2)
        return cast("Tensor", self.pwconv2(self.dwconv(x).permute(0, 2, 3, 1)))


class ConvBlock(nn.Module):
    """A block of the first two stages."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = WithoutBias(width)
        self.token_mixer = SeparableConv(width)
        self.norm2 = WithoutBias(width)
        self.mlp = StarMlp(width)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, H, W, width)` to the same."""
        x = x + self.token_mixer(self.norm1(x))
        return cast("Tensor", x + self.mlp(self.norm2(x)))


class SelfAttention(nn.Module):
    """Attention with heads of 32 channels and no biases, proportional to the sizes of tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // 32
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, size: Tensor | None) -> tuple[Tensor, Tensor]:
        """Tokens `(B, N, width)` of sizes `(B, N)`: the output, and the mean attention each receives, `(B, N)`."""
        batch, tokens, width = x.shape
        parts = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = parts.unbind(0)
        logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        if size is not None:
            logits = logits + size.log()[:, None, None, :]
        rows = logits.softmax(dim=-1)
        mixed = (rows.to(v.dtype) @ v).transpose(1, 2).flatten(2)
        return self.proj(mixed), rows.mean(dim=(1, 2), dtype=torch.promote_types(rows.dtype, torch.float32))


class ResScale(nn.Module):
    """A learned factor for each channel of the residual stream."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Scale `(..., width)`."""
        return x * self.scale


class Downsampling(nn.Module):
    """A strided convolution between stages, normed before it, or after it where it is the stem."""

    def __init__(self, inputs: int, width: int, *, stem: bool) -> None:
        super().__init__()
        if stem:
            self.conv = nn.Conv2d(inputs, width, 7, stride=4, padding=2)
            self.post_norm = WithoutBias(width)
        else:
            self.pre_norm = WithoutBias(inputs)
            self.conv = nn.Conv2d(inputs, width, 3, stride=2, padding=1)
        self.stem = stem

    def forward(self, x: Tensor) -> Tensor:
        """`(B, H, W, inputs)` to `(B, H', W', width)`."""
        if not self.stem:
            x = self.pre_norm(x)
        x = self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return cast("Tensor", self.post_norm(x)) if self.stem else x


class CaformerHead(nn.Module):
    """Two linear layers, four times as wide between, with relu(x) ** 2 and a norm."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.norm = nn.LayerNorm(4 * width)
        self.fc2 = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Features `(B, width)` to logits."""
        return cast("Tensor", self.fc2(self.norm(torch.relu(self.fc1(x)) ** 2)))
