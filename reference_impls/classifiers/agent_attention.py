"""Agent attention in DeiT: a few pooled queries look at all tokens, and all tokens look at what those found.

Tokens stay as many as they were: what is reduced is the attention, from N x N to twice N x agents.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch
from timm.layers.mlp import Mlp
from timm.layers.patch_embed import PatchEmbed
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from reference_impls.layers.agent_attention import AgentAttention
from reference_impls.layers.image_checks import check_image_shape, check_tiling
from tokenmark.contracts import ClassifierMethod, MethodError, Paper, Variant

__all__ = ["METHOD", "AgentDeit", "agents_per_block"]

EPS = 1e-6
STAGES = (2, 2, 6, 2)
"""Blocks that share a number of agents, as in the pyramids that the paper also changes."""


class AgentBlock(nn.Module):
    """A pre-norm transformer block with agent attention."""

    def __init__(self, width: int, heads: int, agents: int, grid: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=EPS)
        self.attn = AgentAttention(width, heads, agents, grid)
        self.norm2 = nn.LayerNorm(width, eps=EPS)
        self.mlp = Mlp(width, 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens `(B, 1 + grid * grid, C)` to tokens."""
        x = x + self.attn(self.norm1(x))
        return cast("Tensor", x + self.mlp(self.norm2(x)))


class AgentDeit(nn.Module):
    """DeiT whose first `agent_layer` blocks (-1: all) have agent attention; the arguments are those of the release.

    The defaults are Agent-DeiT-S. `agent_num` has the numbers of agents, square ones, of blocks 0 to 1, 2 to 3,
    4 to 9 and 10 to 11.

    Raises:
        MethodError: patches that do not tile the image, heads that do not divide the width, or numbers of agents that
            are not four squares of 1 or more, or more agent blocks than they are given for.
    """

    def __init__(
        self,
        *,
        img_size: int = 224,
        patch_size: int = 16,
        embed_dim: int = 384,
        depth: int = 12,
        num_heads: int = 6,
        agent_num: Sequence[int] = (49, 49, 49, 49),
        agent_layer: int = -1,
        num_classes: int = 1000,
    ) -> None:
        super().__init__()
        check_tiling(img_size, patch_size, embed_dim, num_heads)
        grid = img_size // patch_size
        self.image_shape = (3, img_size, img_size)
        self.patch_embed = PatchEmbed(img_size, patch_size, 3, embed_dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid * grid, embed_dim))
        given = agents_per_block(agent_num, agent_layer, depth)
        self.blocks = nn.ModuleList(AgentBlock(embed_dim, num_heads, agents, grid) for agents in given)
        norm: Any = partial(nn.LayerNorm, eps=EPS)
        for _ in range(depth - len(given)):
            self.blocks.append(Block(embed_dim, num_heads, qkv_bias=True, norm_layer=norm))
        self.norm = norm(embed_dim)
        self.head = nn.Linear(embed_dim, num_classes)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(B, classes)` of normalised images `(B, 3, H, W)`.

        Raises:
            MethodError: the images are of another size.
        """
        check_image_shape(images, self.image_shape)
        x = self.patch_embed(images)
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1).to(x.dtype), x), dim=1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return cast("Tensor", self.head(self.norm(x)[:, 0]))


def agents_per_block(agent_num: Sequence[int], agent_layer: int, depth: int) -> list[int]:
    """How many agents the first blocks have, one number for each block that has any.

    Raises:
        MethodError: the numbers are not four squares, or do not reach as far as the blocks.
    """
    if len(agent_num) != len(STAGES) or any(each < 1 or math.isqrt(each) ** 2 != each for each in agent_num):
        raise MethodError(f"agent_num {tuple(agent_num)} must be {len(STAGES)} square numbers, none below 1")
    given = [agents for agents, blocks in zip(agent_num, STAGES, strict=True) for _ in range(blocks)]
    wanted = depth if agent_layer < 0 else agent_layer
    if wanted > min(depth, len(given)):
        raise MethodError(
            f"{wanted} blocks of {depth} cannot have agents: agent_layer must be at most {min(depth, len(given))}"
        )
    return given[:wanted]


def _size(width: int, heads: int, **others: Any) -> Variant:
    note = "its authors link the checkpoint in github.com/LeapLabTHU/Agent-Attention, which states no licence"
    return Variant(config={"embed_dim": width, "num_heads": heads, **others}, note=note)


METHOD = ClassifierMethod(
    id="agent-attention",
    title="Agent attention (DeiT)",
    idea="Let a few pooled queries gather from all tokens, and all tokens read what those gathered.",
    acts="every block or the first few, inside attention",
    paper=Paper(
        title="Agent Attention: On the Integration of Softmax and Linear Attention",
        authors="Dongchen Han, Tianzhu Ye, Yizeng Han, Zhuofan Xia, Siyuan Pan, Pengfei Wan, Shiji Song, Gao Huang",
        year=2024,
        url="https://arxiv.org/abs/2312.08874",
    ),
    build=AgentDeit,
    variants={
        "agent-deit-tiny": _size(192, 3),
        "agent-deit-small": _size(384, 6),
        "agent-deit-small-448": _size(384, 6, img_size=448),
        "agent-deit-base": _size(768, 12, agent_num=[81, 81, 81, 81], agent_layer=4),
    },
)
