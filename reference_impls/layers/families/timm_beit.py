"""timm's BEiT and BEiT v2, whose logits have a bias by the tokens' relative places."""

from typing import Any, cast

import torch
from timm.models.beit import Attention, Beit, Block
from torch import Tensor, nn

from reference_impls.layers.families.base import AttentionView, Backbone, Places, linear_macs, size_weighted_mean
from reference_impls.layers.families.timm_eva import EvaBlockView, biased_qkv
from reference_impls.layers.families.timm_vit import MLPS, embed_macs, heads_of, not_of, timm_embed_refusal

__all__ = ["TimmBeit"]


class BeitAttention(AttentionView):
    """timm's `Attention` of BEiT; its bias is in the model's `Places`."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.scale = module.scale

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One linear layer with biases of its own."""
        return heads_of(biased_qkv(self.module, x), self.module.num_heads)

    def join(self, mixed: Tensor, x: Tensor) -> Tensor:
        """The projection."""
        del x
        return cast("Tensor", self.module.proj_drop(self.module.proj(mixed.transpose(1, 2).flatten(2))))

    @property
    def dropout(self) -> float:
        """Timm's attn_drop."""
        return float(self.module.attn_drop.p) if self.module.training else 0.0


class TimmBeit(Backbone):
    """timm's Beit."""

    prefix = 1
    has_class_token = True

    def __init__(self, vit: Any) -> None:
        self.model = vit
        self.blocks = tuple(EvaBlockView(block, BeitAttention(block.attn)) for block in vit.blocks)
        self.grid = tuple(vit.patch_embed.grid_size)
        self.image_shape = (vit.patch_embed.proj.in_channels, *vit.patch_embed.img_size)
        self.width = int(vit.embed_dim)
        own = [block.attn.relative_position_bias_table is not None for block in vit.blocks]
        self.placed = vit.rel_pos_bias is not None or any(own)

    def embed(self, images: Tensor) -> tuple[Tensor, Places | None]:
        """Patches, class token and positions; the bias of every block."""
        vit: Any = self.model
        x = vit.patch_embed(images)
        x = torch.cat((vit.cls_token.expand(x.shape[0], -1, -1), x), dim=1)
        if vit.pos_embed is not None:
            x = x + vit.pos_embed
        return vit.pos_drop(x), Places(bias=tuple(map(self._bias, vit.blocks))) if self.placed else None

    def _bias(self, block: Any) -> Tensor:
        """Of one block, `(heads, N0, N0)`: its own, that of all blocks, or the sum of both."""
        attention, shared = block.attn, cast("Any", self.model).rel_pos_bias
        bias = None if attention.relative_position_bias_table is None else attention._get_rel_pos_bias()[0]
        if shared is not None:
            bias = shared() if bias is None else bias + shared()
        return cast("Tensor", bias)

    def head(self, x: Tensor, size: Tensor | None) -> Tensor:
        """Norm, pooling and classifier."""
        vit: Any = self.model
        x = vit.norm(x)
        if size is None or vit.global_pool != "avg":
            return cast("Tensor", vit.forward_head(x))
        return cast("Tensor", vit.head(vit.head_drop(vit.fc_norm(size_weighted_mean(x, size, self.prefix)))))

    @property
    def ends_cost(self) -> tuple[int, int, int]:
        """Patch projection and classifier."""
        vit: Any = self.model
        return embed_macs(vit), linear_macs(vit.head), 0

    @classmethod
    def refusal(cls, vit: Any) -> str | None:
        """The first reason not to serve `vit`; None where there is none."""
        if reason := timm_embed_refusal(vit):
            return reason
        if not vit.global_pool:
            return "its pooling '' is not defined over reduced tokens; token, avg are"
        parts = (("blocks", None, (Block,)), ("attention", "attn", (Attention,)), ("MLPs", "mlp", MLPS))
        return next((reason for block in vit.blocks for part in parts if (reason := not_of(block, *part))), None)


KINDS: dict[type[nn.Module], type[TimmBeit]] = {Beit: TimmBeit}
