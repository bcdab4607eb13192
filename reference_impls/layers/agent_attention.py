"""Agent attention (arXiv 2312.08874): softmax attention in two steps, through a few agents."""

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

__all__ = ["AgentAttention"]

TABLE = 7
"""Side of the learned tables of a bias per agent and place, which are resized to the grid of patches."""


class AgentAttention(nn.Module):
    """Two softmax attentions through agents, and a depthwise convolution of the values (arXiv 2312.08874, section 3.3).

    The agents are the queries of the patches, average-pooled to a square of `agents`. Biases are learned per head and
    agent: a table over places that is resized, one for rows and one for columns, and one for the class token; one set
    for each of the two attentions.
    """

    def __init__(self, width: int, heads: int, agents: int, grid: int) -> None:
        super().__init__()
        self.heads, self.grid, self.pool = heads, grid, math.isqrt(agents)
        self.scale = (width // heads) ** -0.5
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.dwc = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.an_bias = _drawn(heads, agents, TABLE, TABLE)
        self.na_bias = _drawn(heads, agents, TABLE, TABLE)
        self.ah_bias = _drawn(1, heads, agents, grid, 1)
        self.aw_bias = _drawn(1, heads, agents, 1, grid)
        self.ha_bias = _drawn(1, heads, grid, 1, agents)
        self.wa_bias = _drawn(1, heads, 1, grid, agents)
        self.ac_bias = _drawn(1, heads, agents, 1)
        self.ca_bias = _drawn(1, heads, 1, agents)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens `(B, 1 + grid * grid, C)`, the class token first, to tokens."""
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        agents = adaptive_avg_pool2d(self._image(q), self.pool).flatten(2).transpose(1, 2)
        heads_q, heads_k, heads_v, heads_a = (self._split(each) for each in (q, k, v, agents))
        gathered = (heads_a * self.scale) @ heads_k.transpose(-2, -1) + self._bias_of_agents()
        found = gathered.softmax(dim=-1).to(v.dtype) @ heads_v
        spread = (heads_q * self.scale) @ heads_a.transpose(-2, -1) + self._bias_of_tokens()
        mixed = (spread.softmax(dim=-1).to(v.dtype) @ found).transpose(1, 2).flatten(2)
        local = self.dwc(self._image(v)).flatten(2).transpose(1, 2)
        return cast("Tensor", self.proj(torch.cat((mixed[:, :1], mixed[:, 1:] + local), dim=1)))

    def _image(self, x: Tensor) -> Tensor:
        """The patches of tokens `(B, N, C)` as an image `(B, C, grid, grid)`."""
        return cast("Tensor", x[:, 1:].transpose(1, 2).unflatten(2, (self.grid, self.grid)))

    def _split(self, x: Tensor) -> Tensor:
        """`(B, N, C)` to `(B, heads, N, C / heads)`."""
        return cast("Tensor", x.unflatten(2, (self.heads, -1)).transpose(1, 2))

    def _bias_of_agents(self) -> Tensor:
        """`(1, heads, agents, N)`: what is added where agents look at tokens."""
        places = self._resized(self.an_bias) + (self.ah_bias + self.aw_bias).flatten(3)
        return torch.cat((self.ac_bias, places), dim=3)

    def _bias_of_tokens(self) -> Tensor:
        """`(1, heads, N, agents)`: what is added where tokens look at agents."""
        places = self._resized(self.na_bias).transpose(2, 3) + (self.ha_bias + self.wa_bias).flatten(2, 3)
        return torch.cat((self.ca_bias, places), dim=2)

    def _resized(self, table: Tensor) -> Tensor:
        """A table `(heads, agents, 7, 7)` over the patches, `(1, heads, agents, patches)`."""
        return interpolate(table, (self.grid, self.grid), mode="bilinear", align_corners=False).flatten(2)[None]


def _drawn(*shape: int) -> nn.Parameter:
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(shape), std=0.02))
