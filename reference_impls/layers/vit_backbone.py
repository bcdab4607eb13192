"""Which vision transformers the reducers' driver serves, decided by exact types, with the reason where it refuses."""

from typing import Any, Literal, get_args

from torch import nn

from reference_impls.layers.families import lv_vit, swag, timm_beit, timm_eva, timm_vit
from reference_impls.layers.families.base import Backbone
from tokenmark.contracts import MethodError, UnsupportedBackboneError

__all__ = ["AttentionKind", "Backbone", "inspect_backbone"]

AttentionKind = Literal["fused", "eager"]
"""`fused`: `torch.nn.functional.scaled_dot_product_attention`; `eager`: the attention matrix is written out."""

SERVED = (
    "timm's VisionTransformer (DeiT, DeiT-III, DINOv2, SigLIP, MAE), Eva (EVA-02, DINOv3) and Beit, open_clip's"
    " image towers, and the LV-ViT and SWAG of this package"
)


def inspect_backbone(model: nn.Module, attention: AttentionKind = "fused") -> Backbone:
    """The pieces of `model` that the driver runs.

    A subclass may override any part of the forward pass, and the driver would silently run another model: so types
    are compared, never isinstance.

    Raises:
        UnsupportedBackboneError: the model, a block, an attention or the pooling is of a kind that is not served.
        MethodError: `attention` is neither "fused" nor "eager".
    """
    if attention not in get_args(AttentionKind):
        raise MethodError(f"attention '{attention}' does not exist: choose 'fused' or 'eager'")
    kind = _kinds(model).get(type(model))
    name = type(model).__name__
    if kind is None:
        raise UnsupportedBackboneError(f"{name} is not served: reducers run {SERVED}, not compiled, wrapped or patched")
    reason = kind.refusal(model)
    if reason is not None:
        raise UnsupportedBackboneError(f"this {name} is not served: {reason}")
    found: Backbone = kind(model)
    return found


def _kinds(model: nn.Module) -> dict[type[nn.Module], Any]:
    """The families that the model may be of; open_clip's are imported when a model of its own is met."""
    if type(model).__module__.partition(".")[0] == "open_clip":
        from reference_impls.layers.families import open_clip_vit  # noqa: PLC0415  open_clip takes seconds to import

        return dict(open_clip_vit.KINDS)
    return {**timm_vit.KINDS, **timm_eva.KINDS, **timm_beit.KINDS, **lv_vit.KINDS, **swag.KINDS}
