"""timm's Eva: EVA, EVA-02 and DINOv3, whose queries and keys are turned by their tokens' places."""

from typing import Any, cast

import torch
from timm.layers.attention import AttentionRope
from timm.models.eva import Eva, EvaAttention, EvaBlock
from torch import Tensor, nn
from torch.nn.functional import linear

from reference_impls.layers.families.base import (
    AttentionView,
    Backbone,
    BlockView,
    Places,
    linear_macs,
    size_weighted_mean,
)
from reference_impls.layers.families.timm_vit import (
    MLPS,
    POOLS,
    embed_macs,
    heads_of,
    not_of,
    pool_macs,
    timm_embed_refusal,
)
from tokenmark.contracts import BlockCost

__all__ = ["TimmEva", "biased_qkv"]


class EvaSelfAttention(AttentionView):
    """timm's `EvaAttention` and `AttentionRope`: fused or split projections, qk-norm, norm and gate."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.scale = module.scale

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """From one projection with biases of its own, or from three; keys of few heads are repeated."""
        module = self.module
        if module.qkv is not None:
            q, k, v = heads_of(biased_qkv(module, x), module.num_heads)
        else:
            q, k, v = (
                projection(x).unflatten(2, (-1, module.head_dim)).transpose(1, 2)
                for projection in (module.q_proj, module.k_proj, module.v_proj)
            )
        q, k = module.q_norm(q).to(v.dtype), module.k_norm(k).to(v.dtype)
        groups = q.shape[1] // k.shape[1]
        return q, k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)

    def join(self, mixed: Tensor, x: Tensor) -> Tensor:
        """Norm, gate and projection."""
        module = self.module
        mixed = module.norm(mixed.transpose(1, 2).flatten(2))
        if module.gate is not None:
            mixed = mixed * module.gate(x).sigmoid()
        return cast("Tensor", module.proj_drop(module.proj(mixed)))

    @property
    def dropout(self) -> float:
        """Timm's attn_drop."""
        return float(self.module.attn_drop.p) if self.module.training else 0.0


def biased_qkv(module: Any, x: Tensor) -> Tensor:
    """The projection of timm's EVA and BEiT: the keys' bias is a constant zero, and lies beside the layer."""
    if getattr(module, "q_bias", None) is None:
        return cast("Tensor", module.qkv(x))
    bias = torch.cat((module.q_bias, module.k_bias, module.v_bias))
    return linear(x, module.qkv.weight, bias)


class EvaBlockView(BlockView):
    """timm's `EvaBlock`; BEiT's `Block` has the same parts."""

    def __init__(self, block: Any, attention: AttentionView) -> None:
        self.block, self.attention = block, attention
        width = block.attn.proj.in_features
        self.head_width = width // block.attn.num_heads
        self.cost = BlockCost(linear_macs(block.attn), 2 * width, linear_macs(block.mlp))

    def norm1(self, x: Tensor) -> Tensor:
        """Its norm1."""
        return cast("Tensor", self.block.norm1(x))

    def residual1(self, out: Tensor) -> Tensor:
        """Layer scale, where there is one, and drop-path."""
        gamma = self.block.gamma_1
        return cast("Tensor", self.block.drop_path1(out if gamma is None else gamma * out))

    def norm2(self, x: Tensor) -> Tensor:
        """Its norm2."""
        return cast("Tensor", self.block.norm2(x))

    def mlp(self, x: Tensor) -> Tensor:
        """Its MLP."""
        return cast("Tensor", self.block.mlp(x))

    def residual2(self, out: Tensor) -> Tensor:
        """Layer scale, where there is one, and drop-path."""
        gamma = self.block.gamma_2
        return cast("Tensor", self.block.drop_path2(out if gamma is None else gamma * out))


class TimmEva(Backbone):
    """timm's Eva."""

    def __init__(self, vit: Any) -> None:
        self.model = vit
        self.blocks = tuple(EvaBlockView(block, EvaSelfAttention(block.attn)) for block in vit.blocks)
        self.prefix = int(vit.num_prefix_tokens)
        self.grid = tuple(vit.patch_embed.grid_size)
        self.image_shape = (vit.patch_embed.proj.in_channels, *vit.patch_embed.img_size)
        self.width = int(vit.embed_dim)
        self.has_class_token = vit.cls_token is not None
        self.placed = vit.rope is not None

    def embed(self, images: Tensor) -> tuple[Tensor, Places | None]:
        """Patches, prefix tokens and positions; the rotations of every block."""
        vit: Any = self.model
        x, rotary = vit._pos_embed(vit.patch_embed(images))
        x = vit.norm_pre(x)
        if rotary is None:
            return x, None
        still = self._with_prefix(rotary)
        per_block = tuple(still) if vit.rope_mixed else (still[None],) * self.depth
        half = bool(getattr(vit.blocks[0].attn, "rotate_half", False))
        return x, Places(rotary=per_block, rotate_half=half)

    def _with_prefix(self, rotary: Tensor) -> Tensor:
        """Rotations `(..., patches, 2 D)` with those of the prefix tokens before them, which turn nothing."""
        sines, cosines = rotary.chunk(2, dim=-1)
        shape = (*sines.shape[:-2], self.prefix, sines.shape[-1])
        first = torch.cat((sines.new_zeros(shape), cosines.new_ones(shape)), dim=-1)
        return torch.cat((first, rotary), dim=-2)

    def head(self, x: Tensor, size: Tensor | None) -> Tensor:
        """Norm, pooling and classifier."""
        vit: Any = self.model
        x = vit.norm(x)
        if size is None or vit.attn_pool is not None or vit.global_pool != "avg":
            return cast("Tensor", vit.forward_head(x))
        return cast("Tensor", vit.head(vit.head_drop(vit.fc_norm(size_weighted_mean(x, size, self.prefix)))))

    @property
    def ends_cost(self) -> tuple[int, int, int]:
        """Patch projection, classifier, and attention pooling where there is one."""
        vit: Any = self.model
        once, per_token = pool_macs(vit.attn_pool)
        return embed_macs(vit), linear_macs(vit.head) + once, per_token

    @classmethod
    def refusal(cls, vit: Any) -> str | None:
        """The first reason not to serve `vit`; None where there is none."""
        if reason := timm_embed_refusal(vit):
            return reason
        if vit.patch_drop is not None:
            return "it drops patches in training (patch_drop_rate), so its token counts are not fixed"
        if vit.global_pool not in POOLS:
            return f"its pooling '{vit.global_pool}' is not defined over reduced tokens; {', '.join(POOLS)} are"
        kinds = (EvaAttention, AttentionRope)
        parts = (("blocks", None, (EvaBlock,)), ("attention", "attn", kinds), ("MLPs", "mlp", MLPS))
        return next((reason for block in vit.blocks for part in parts if (reason := not_of(block, *part))), None)


KINDS: dict[type[nn.Module], type[TimmEva]] = {Eva: TimmEva}
