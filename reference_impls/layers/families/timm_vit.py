"""timm's VisionTransformer and distilled DeiT: ViT, DeiT, DeiT-III, DINOv2 with registers, CLIP, SigLIP, MAE."""

from typing import Any, cast

from timm.layers.mlp import GluMlp, Mlp, SwiGLU
from timm.layers.patch_dropout import PatchDropout
from timm.layers.patch_embed import PatchEmbed
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Attention, Block, VisionTransformer  # type: ignore[attr-defined]
from torch import Tensor, nn

from reference_impls.layers.families.base import (
    AttentionView,
    Backbone,
    BlockView,
    Places,
    linear_macs,
    size_weighted_mean,
)
from tokenmark.contracts import BlockCost

__all__ = ["MLPS", "POOLS", "TimmVit", "embed_macs", "heads_of", "not_of", "pool_macs", "timm_embed_refusal"]

MLPS: tuple[type, ...] = (Mlp, GluMlp, SwiGLU)
POOLS = ("token", "avg", "max", "map")


class TimmAttention(AttentionView):
    """timm's `Attention`."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.scale = module.scale

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One linear layer gives q, k and v, in this order, heads inside."""
        q, k, v = heads_of(self.module.qkv(x), self.module.num_heads)
        # qk-norm gives float32 under autocast: one type for all three, as a fused kernel demands.
        return self.module.q_norm(q).to(v.dtype), self.module.k_norm(k).to(v.dtype), v

    def join(self, mixed: Tensor, x: Tensor) -> Tensor:
        """Norm and gate, where there are, and projection."""
        module, mixed = self.module, mixed.transpose(1, 2).flatten(2)
        # Both are younger than the oldest timm that is supported.
        norm, gate = getattr(module, "norm", None), getattr(module, "gate", None)
        if norm is not None:
            mixed = norm(mixed)
        if gate is not None:
            mixed = mixed * gate(x).sigmoid()
        return cast("Tensor", module.proj_drop(module.proj(mixed)))

    @property
    def dropout(self) -> float:
        """Timm's attn_drop."""
        return float(self.module.attn_drop.p) if self.module.training else 0.0


class TimmBlock(BlockView):
    """timm's `Block`."""

    def __init__(self, block: Any) -> None:
        self.block = block
        self.attention = TimmAttention(block.attn)
        width = block.attn.qkv.out_features // 3
        self.head_width = width // block.attn.num_heads
        self.cost = BlockCost(linear_macs(block.attn), 2 * width, linear_macs(block.mlp))

    def norm1(self, x: Tensor) -> Tensor:
        """Its norm1."""
        return cast("Tensor", self.block.norm1(x))

    def residual1(self, out: Tensor) -> Tensor:
        """Layer scale and drop-path."""
        return cast("Tensor", self.block.drop_path1(self.block.ls1(out)))

    def norm2(self, x: Tensor) -> Tensor:
        """Its norm2."""
        return cast("Tensor", self.block.norm2(x))

    def mlp(self, x: Tensor) -> Tensor:
        """Its MLP."""
        return cast("Tensor", self.block.mlp(x))

    def residual2(self, out: Tensor) -> Tensor:
        """Layer scale and drop-path."""
        return cast("Tensor", self.block.drop_path2(self.block.ls2(out)))


class TimmVit(Backbone):
    """timm's VisionTransformer, of one of the kinds in `KINDS`."""

    def __init__(self, vit: Any) -> None:
        self.model = vit
        self.blocks = tuple(TimmBlock(block) for block in vit.blocks)
        self.prefix = int(vit.num_prefix_tokens)
        self.grid = tuple(vit.patch_embed.grid_size)
        self.image_shape = (vit.patch_embed.proj.in_channels, *vit.patch_embed.img_size)
        self.width = int(vit.embed_dim)
        self.has_class_token = bool(vit.has_class_token)

    def embed(self, images: Tensor) -> tuple[Tensor, Places | None]:
        """Patches, prefix tokens and positions."""
        vit: Any = self.model
        return vit.norm_pre(vit._pos_embed(vit.patch_embed(images))), None

    def head(self, x: Tensor, size: Tensor | None) -> Tensor:
        """Norm, pooling and classifier; a mean over merged tokens weighs them by size, as ToMe's release does."""
        vit: Any = self.model
        x = vit.norm(x)
        if size is None or vit.global_pool != "avg":
            return cast("Tensor", vit.forward_head(x))
        mean = size_weighted_mean(x, size, 0 if vit.pool_include_prefix else vit.num_prefix_tokens)
        return cast("Tensor", vit.head(vit.head_drop(vit.fc_norm(mean))))

    @property
    def ends_cost(self) -> tuple[int, int, int]:
        """Patch projection, classifiers, and attention pooling over tokens where there is one."""
        vit: Any = self.model
        once, per_token = pool_macs(vit.attn_pool if vit.global_pool == "map" else None)
        classifiers = linear_macs(vit.head) + linear_macs(getattr(vit, "head_dist", None))
        return embed_macs(vit), classifiers + once, per_token

    @classmethod
    def refusal(cls, vit: Any) -> str | None:
        """The first reason not to serve `vit`; None where there is none."""
        if reason := timm_embed_refusal(vit):
            return reason
        if isinstance(vit.patch_drop, PatchDropout):
            return "it drops patches in training (patch_drop_rate), so its token counts are not fixed"
        if vit.global_pool not in POOLS:
            return f"its pooling '{vit.global_pool}' is not defined over reduced tokens; {', '.join(POOLS)} are"
        parts = (("blocks", None, (Block,)), ("attention", "attn", (Attention,)), ("MLPs", "mlp", MLPS))
        return next((reason for block in vit.blocks for part in parts if (reason := not_of(block, *part))), None)


def heads_of(parts: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values `(B, heads, N, D)` of one projection's output `(B, N, 3 heads D)`."""
    batch, tokens, width = parts.shape
    split = parts.reshape(batch, tokens, 3, heads, width // (3 * heads)).permute(2, 0, 3, 1, 4)
    q, k, v = split.unbind(0)
    return q, k, v


def timm_embed_refusal(vit: Any) -> str | None:
    """Why a timm model's patch embedding has no fixed number of patches; None where it has."""
    if type(vit.patch_embed) is PatchEmbed and vit.patch_embed.img_size is not None:
        return None
    name = type(vit.patch_embed).__name__
    return f"its patch embedding {name} has no fixed grid; only PatchEmbed with img_size has"


def not_of(block: nn.Module, what: str, name: str | None, types: tuple[type, ...]) -> str | None:
    """A reason if a block, or the part of it that is called `name`, is not exactly one of `types`."""
    module = block if name is None else getattr(block, name, None)
    if type(module) in types:
        return None
    return f"it has {what} of type {type(module).__name__}; served: {', '.join(each.__name__ for each in types)}"


def embed_macs(vit: Any) -> int:
    """MACs of a timm model's patch embedding."""
    return int(vit.patch_embed.num_patches) * int(vit.patch_embed.proj.weight.numel())


def pool_macs(pool: Any) -> tuple[int, int]:
    """MACs of timm's attention pooling: once per image, and for every token that it reads."""
    if pool is None:
        return 0, 0
    query = linear_macs(pool.q) + linear_macs(pool.proj) + linear_macs(pool.mlp)
    return query * pool.latent_len, linear_macs(pool.kv) + 2 * pool.latent_len * pool.num_heads * pool.head_dim


KINDS: dict[type[nn.Module], type[TimmVit]] = {VisionTransformer: TimmVit, VisionTransformerDistilled: TimmVit}
