"""open_clip's image towers: its own vision transformer (CLIP, CoCa without attention pooling), and timm's within it."""

from typing import Any, cast

from open_clip.timm_model import TimmModel
from open_clip.transformer import (
    Attention,
    CustomResidualAttentionBlock,
    ResidualAttentionBlock,
    Transformer,
    VisionTransformer,
)
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
from reference_impls.layers.families.timm_vit import heads_of, not_of
from reference_impls.layers.families.torch_attention import TorchAttention
from tokenmark.contracts import BlockCost

__all__ = ["OpenClipVit"]


class CustomAttention(AttentionView):
    """open_clip's own `Attention`: qk-norm, scaled heads, inner norm."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.scale = module.scale

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `TorchAttention`, with qk-norm where there is one."""
        module = self.module
        q, k, v = heads_of(linear(x, module.in_proj_weight, module.in_proj_bias), module.num_heads)
        return module.ln_q(q).to(v.dtype), module.ln_k(k).to(v.dtype), v

    def join(self, mixed: Tensor, x: Tensor) -> Tensor:
        """Scales of heads, norm and projection."""
        del x
        module = self.module
        if module.head_scale is not None:
            mixed = mixed * module.head_scale
        return cast("Tensor", module.out_drop(module.out_proj(module.ln_inner(mixed.transpose(1, 2).flatten(2)))))

    @property
    def dropout(self) -> float:
        """open_clip's attn_drop."""
        return float(self.module.attn_drop.p) if self.module.training else 0.0


class OpenClipBlock(BlockView):
    """open_clip's `ResidualAttentionBlock` and `CustomResidualAttentionBlock`."""

    def __init__(self, block: Any) -> None:
        self.block = block
        custom = type(block.attn) is Attention
        self.attention = CustomAttention(block.attn) if custom else TorchAttention(block.attn)
        width = block.attn.out_proj.in_features
        self.head_width = width // block.attn.num_heads
        projections = block.attn.in_proj_weight.numel() + linear_macs(block.attn)
        self.cost = BlockCost(projections, 2 * width, linear_macs(block.mlp))

    def norm1(self, x: Tensor) -> Tensor:
        """Its ln_1."""
        return cast("Tensor", self.block.ln_1(x))

    def residual1(self, out: Tensor) -> Tensor:
        """The norm after attention, where there is one, and layer scale."""
        after = getattr(self.block, "ln_attn", None)
        return cast("Tensor", self.block.ls_1(out if after is None else after(out)))

    def norm2(self, x: Tensor) -> Tensor:
        """Its ln_2."""
        return cast("Tensor", self.block.ln_2(x))

    def mlp(self, x: Tensor) -> Tensor:
        """Its MLP."""
        return cast("Tensor", self.block.mlp(x))

    def residual2(self, out: Tensor) -> Tensor:
        """Layer scale."""
        return cast("Tensor", self.block.ls_2(out))


class OpenClipVit(Backbone):
    """open_clip's VisionTransformer; it gives an image's embedding `(B, output_dim)`, not logits."""

    prefix = 1
    has_class_token = True

    def __init__(self, vit: Any) -> None:
        self.model = vit
        self.blocks = tuple(map(OpenClipBlock, vit.transformer.resblocks))
        self.grid = tuple(vit.grid_size)
        self.image_shape = (vit.conv1.in_channels, *vit.image_size)
        self.width = int(vit.conv1.out_channels)

    def embed(self, images: Tensor) -> tuple[Tensor, Places | None]:
        """Patches, class token, positions and norm."""
        return cast("Any", self.model)._embeds(images), None

    def head(self, x: Tensor, size: Tensor | None) -> Tensor:
        """Norm, pooling and projection."""
        vit: Any = self.model
        if size is None or vit.pool_type != "avg":
            pooled = vit._pool(x)[0]
        elif vit.final_ln_after_pool:
            pooled = vit.ln_post(size_weighted_mean(x, size, 1))
        else:
            pooled = size_weighted_mean(vit.ln_post(x), size, 1)
        return cast("Tensor", pooled if vit.proj is None else pooled @ vit.proj)

    @property
    def ends_cost(self) -> tuple[int, int, int]:
        """Patch projection and the embedding's."""
        vit: Any = self.model
        return self.patches * vit.conv1.weight.numel(), 0 if vit.proj is None else vit.proj.numel(), 0

    @classmethod
    def refusal(cls, vit: Any) -> str | None:
        """The first reason not to serve `vit`; None where there is none."""
        if vit.attn_pool is not None or vit.pool_type not in {"tok", "avg"} or vit.output_tokens:
            return "its pooling is not defined over reduced tokens; the class token and the mean are"
        if not isinstance(vit.patch_dropout, nn.Identity):
            return "it drops patches in training (patch_dropout), so its token counts are not fixed"
        if type(vit.transformer) is not Transformer or not vit.transformer.batch_first:
            return f"it has a transformer of type {type(vit.transformer).__name__}, or not batch first"
        blocks = (ResidualAttentionBlock, CustomResidualAttentionBlock)
        kinds = (nn.MultiheadAttention, Attention)
        parts = (("blocks", None, blocks), ("attention", "attn", kinds), ("MLPs", "mlp", (nn.Sequential,)))
        each = vit.transformer.resblocks
        if any(getattr(block.attn, "logit_scale", None) is not None for block in each):
            return "its attention is of scaled cosines, which open_clip itself cannot run"
        return next((reason for block in each for part in parts if (reason := not_of(block, *part))), None)


class OpenClipTimm(Backbone):
    """open_clip's TimmModel: a timm model and a projection, as in SigLIP's image tower."""

    def __init__(self, tower: Any) -> None:
        from reference_impls.layers.vit_backbone import inspect_backbone  # noqa: PLC0415  it looks up this file

        self.model = tower
        self.trunk = inspect_backbone(tower.trunk)
        trunk = self.trunk
        self.blocks, self.prefix, self.grid = trunk.blocks, trunk.prefix, trunk.grid
        self.image_shape, self.width = trunk.image_shape, trunk.width
        self.has_class_token, self.placed = trunk.has_class_token, trunk.placed

    def embed(self, images: Tensor) -> tuple[Tensor, Places | None]:
        """The timm model's."""
        return self.trunk.embed(images)

    def head(self, x: Tensor, size: Tensor | None) -> Tensor:
        """The timm model's, and the projection."""
        return cast("Tensor", cast("Any", self.model).head(self.trunk.head(x, size)))

    @property
    def ends_cost(self) -> tuple[int, int, int]:
        """The timm model's, and the projection."""
        embed, head, per_token = self.trunk.ends_cost
        return embed, head + linear_macs(cast("Any", self.model).head), per_token

    @classmethod
    def refusal(cls, tower: Any) -> str | None:
        """Its trunk is judged for itself; its own head must take pooled features."""
        names = [name for name, _ in tower.head.named_children()]
        return f"its head pools by itself ({names[0]})" if "pool" in names else None


KINDS: dict[type[nn.Module], type[OpenClipVit] | type[OpenClipTimm]] = {
    VisionTransformer: OpenClipVit,
    TimmModel: OpenClipTimm,
}
