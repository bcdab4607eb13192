"""Which vision transformers the reducers' driver serves, decided by exact types, with the reason where it refuses."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from timm.layers.mlp import GluMlp, Mlp, SwiGLU
from timm.layers.patch_dropout import PatchDropout
from timm.layers.patch_embed import PatchEmbed
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Attention, Block, VisionTransformer  # type: ignore[attr-defined]
from torch import nn

from tokenmark.contracts import BlockTokens, MethodError, UnsupportedBackboneError

__all__ = ["Attention", "AttentionKind", "Backbone", "inspect_backbone"]

AttentionKind = Literal["fused", "eager"]
"""`fused`: `torch.nn.functional.scaled_dot_product_attention`; `eager`: the attention matrix is written out."""

# A subclass may override any part of the forward pass (relative positions, rotary embeddings, a patched block),
# and the driver would silently run another model: so types are compared, never isinstance.
_MODELS = (VisionTransformer, VisionTransformerDistilled)
_MLPS = (Mlp, GluMlp, SwiGLU)
_POOLS = ("token", "avg", "max", "map")


@dataclass(frozen=True)
class Backbone:
    """A vision transformer that the driver serves, and the counts that a schedule needs."""

    vit: VisionTransformer
    depth: int
    prefix: int
    """Tokens before the patches: class, distillation and register tokens."""
    patches: int
    image_shape: tuple[int, int, int]
    """Channels, height and width in pixels."""

    @property
    def tokens(self) -> int:
        """Tokens that enter the first block."""
        return self.prefix + self.patches

    @property
    def has_class_token(self) -> bool:
        """Whether token 0 is a class token."""
        return bool(self.vit.has_class_token)

    def unreduced(self) -> tuple[BlockTokens, ...]:
        """The schedule of the untouched model."""
        return (BlockTokens(self.tokens, self.tokens),) * self.depth


def inspect_backbone(model: nn.Module, attention: AttentionKind = "fused") -> Backbone:
    """Say what the driver needs to know of `model`.

    Raises:
        UnsupportedBackboneError: the model, a block, an attention or the pooling is of a kind that is not served.
        MethodError: `attention` is neither "fused" nor "eager".
    """
    if attention not in get_args(AttentionKind):
        raise MethodError(f"attention '{attention}' does not exist: choose 'fused' or 'eager'")
    if type(model) not in _MODELS:
        raise UnsupportedBackboneError(
            f"{_name(model)} is not served: reducers run timm's VisionTransformer and VisionTransformerDistilled, "
            "not compiled, wrapped or patched"
        )
    assert isinstance(model, VisionTransformer)  # noqa: S101 - tells the type checker what was just compared
    reason = _refusal(model)
    if reason is not None:
        raise UnsupportedBackboneError(f"this {_name(model)} is not served: {reason}")
    return Backbone(
        vit=model,
        depth=len(model.blocks),
        prefix=int(model.num_prefix_tokens),
        patches=int(model.patch_embed.num_patches),
        image_shape=(model.patch_embed.proj.in_channels, *model.patch_embed.img_size),
    )


def _refusal(vit: VisionTransformer) -> str | None:
    """The first reason not to serve `vit`; None where there is none."""
    if type(vit.patch_embed) is not PatchEmbed or vit.patch_embed.img_size is None:
        return f"its patch embedding {_name(vit.patch_embed)} has no fixed grid; only PatchEmbed with img_size has"
    if isinstance(vit.get_submodule("patch_drop"), PatchDropout):
        return "it drops patches in training (patch_drop_rate), so its token counts are not fixed"
    if vit.global_pool not in _POOLS:
        return f"its pooling '{vit.global_pool}' is not defined over reduced tokens; {', '.join(_POOLS)} are"
    return next((reason for block in vit.blocks if (reason := _block_refusal(block)) is not None), None)


def _block_refusal(block: nn.Module) -> str | None:
    served: tuple[tuple[str, Any, tuple[type, ...]], ...] = (
        ("blocks", block, (Block,)),
        ("attention", getattr(block, "attn", None), (Attention,)),
        ("MLPs", getattr(block, "mlp", None), _MLPS),
    )
    for what, module, types in served:
        if type(module) not in types:
            return f"it has {what} of type {_name(module)}; served: {', '.join(each.__name__ for each in types)}"
    return None


def _name(module: object) -> str:
    return type(module).__name__
