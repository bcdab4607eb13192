"""A small model of every family that the reducers' driver serves, and settings under which each method reduces it."""

from typing import Any

import open_clip
import torch
from open_clip.timm_model import TimmModel
from timm import create_model
from timm.models.beit import Beit
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from reference_impls.layers.lv_vit import LvVit
from reference_impls.layers.swag_vit import SwagVit
from reference_impls.layers.vit_backbone import inspect_backbone
from tokenmark.contracts import ReducedModel, ReducerMethod

SMALL = {"embed_dim": 32, "depth": 4, "num_heads": 2, "num_classes": 5}


def clip_tower(**changes: Any) -> nn.Module:
    """open_clip's own image tower."""
    sizes = {"image_size": 64, "patch_size": 16, "width": 32, "layers": 4, "heads": 2, "mlp_ratio": 4.0}
    return open_clip.transformer.VisionTransformer(**sizes, output_dim=5, **changes)


def clip_timm() -> nn.Module:
    """open_clip's tower around a timm model, as SigLIP's."""
    tower = TimmModel("test_vit", embed_dim=5, pool="avg", proj="linear", pretrained=False)
    tower.trunk = create_model("vit_base_patch16_siglip_224", img_size=64, **{**SMALL, "num_classes": 0})
    tower.head = nn.Sequential(nn.Linear(SMALL["embed_dim"], 5, bias=False))
    return tower


SERVED = {
    "vit": lambda: create_model("vit_tiny_patch16_224", img_size=64, **SMALL),
    "deit": lambda: create_model("deit_tiny_patch16_224", img_size=64, **SMALL),
    "deit-distilled": lambda: create_model("deit_tiny_distilled_patch16_224", img_size=64, **SMALL),
    "deit3": lambda: create_model("deit3_small_patch16_224", img_size=64, **SMALL),
    "dinov2": lambda: create_model("vit_small_patch14_dinov2", img_size=56, **SMALL),
    "dinov2-registers": lambda: create_model("vit_small_patch14_reg4_dinov2", img_size=56, **SMALL),
    "dinov2-giant-swiglu": lambda: create_model("vit_giant_patch14_dinov2", img_size=56, **SMALL),
    "clip": lambda: create_model("vit_base_patch32_clip_224", img_size=128, **SMALL),
    "siglip": lambda: create_model("vit_base_patch16_siglip_224", img_size=64, **SMALL),
    "qk-norm": lambda: VisionTransformer(img_size=64, qk_norm=True, scale_attn_norm=True, scale_mlp_norm=True, **SMALL),
    "average": lambda: VisionTransformer(img_size=64, class_token=False, global_pool="avg", **SMALL),
    "average-beside-class": lambda: VisionTransformer(img_size=64, global_pool="avg", **SMALL),
    "average-with-class": lambda: VisionTransformer(img_size=64, global_pool="avg", pool_include_prefix=True, **SMALL),
    "maximum": lambda: VisionTransformer(img_size=64, global_pool="max", **SMALL),
    "gated-no-position": lambda: gated(
        VisionTransformer(img_size=64, pos_embed="none", proj_bias=False, qkv_bias=False, **SMALL)
    ),
    "oblong": lambda: VisionTransformer(img_size=(48, 80), **SMALL),
    "mae": lambda: create_model("vit_base_patch16_224.mae", img_size=64, global_pool="avg", **SMALL),
    "eva": lambda: create_model("eva_giant_patch14_224", img_size=56, mlp_ratio=2, **SMALL),
    "eva02": lambda: create_model("eva02_base_patch14_448", img_size=56, **SMALL),
    "eva02-tiny": lambda: create_model("eva02_tiny_patch14_336", img_size=56, **SMALL),
    "eva02-enormous": lambda: Eva(img_size=64, attn_type="rope", use_rot_pos_emb=True, global_pool="map", **SMALL),
    "rope-mixed": lambda: Eva(
        img_size=64, use_rot_pos_emb=True, rope_type="mixed", num_reg_tokens=2, init_values=1.0, **SMALL
    ),
    "dinov3": lambda: create_model("vit_small_patch16_dinov3", img_size=64, **SMALL),
    "dinov3-swiglu": lambda: create_model("vit_small_plus_patch16_dinov3", img_size=64, **SMALL),
    "beit": lambda: create_model("beit_base_patch16_224", img_size=64, **SMALL),
    "beit-shared": lambda: Beit(
        img_size=64, use_shared_rel_pos_bias=True, use_rel_pos_bias=True, global_pool="token", **SMALL
    ),
    "open-clip": clip_tower,
    "clip-average": lambda: clip_tower(pool_type="avg", final_ln_after_pool=True, no_ln_pre=True, ls_init_value=1.0),
    "clip-custom": lambda: clip_tower(
        qk_norm=True, scale_heads=True, scale_attn_inner=True, scale_attn=True, scale_fc=True
    ),
    "clip-timm": clip_timm,
    "lv-vit": lambda: LvVit(img_size=64, stem_width=8, skip_lam=1.5, **SMALL),
    "swag": lambda: SwagVit(img_size=64, patch_size=16, **SMALL),
    "dynamic-size": lambda: VisionTransformer(img_size=64, dynamic_img_size=True, reg_tokens=2, **SMALL),
}


def gated(model: nn.Module) -> nn.Module:
    """The model with a sigmoid gate on every attention's output."""
    for block in model.blocks:
        block.attn.gate = nn.Linear(SMALL["embed_dim"], SMALL["embed_dim"])
    return model


def served(name: str) -> nn.Module:
    """The named model in float64 and evaluation mode, with random values in every parameter."""
    return randomised(SERVED[name]())


def randomised(model: nn.Module) -> nn.Module:
    """Fill every parameter, layer scales, biases and norms too, so that no branch can be skipped unnoticed."""
    generator = torch.Generator().manual_seed(0)
    model.double().eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = torch.randn(value.shape, generator=generator, dtype=torch.float64)
            if value.ndim > 1:
                value.copy_(noise / value[0].numel() ** 0.5 if not name.endswith(("pos_embed", "cls_token")) else noise)
            else:
                value.copy_((1.0 if name.endswith(("weight", "gamma")) else 0.0) + 0.3 * noise)
    return model


def images_for(model: nn.Module, batch: int = 2) -> Tensor:
    """Random images of the model's size."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, *inspect_backbone(model).image_shape, generator=generator, dtype=torch.float64)


STAGES = {"keep_rate": 0.7, "blocks": (1, 3)}
"""For those with `Stages`, which are told by their setting `keep_rate`."""
SETTINGS: dict[str, dict[str, Any]] = {
    "none": {},
    "tome": {"r": 2},
    "ats": {"blocks": (1, 3)},
    "pitome": {"ratio": 0.8},
    "atc-every-layer": {"r": 3},
    "diffrate": {"prune_kept": (99, 14, 14, 11), "merge_kept": (99, 12, 14, 9)},
    "token-pooling": {"macs_rate": 0.9},
    "zero-tprune": {"macs_rate": 0.9, "similar": 2},
    "vwt-intra": {"keep": 0.5},
    "vwt-inter": {"drawn_words": 8, "threshold": 1.0},
    "cropr": {"r": 2},
    "sparsifiner": {"attn_keep_rate": 0.5, "reduce_n": 2, "basis_top": 4},
    "clca": {"keep_rate": 0.6, "blocks": (1, 2)},
    "average-pool": {"keep_rate": 0.5},
    "select-dart": {"block": 2, "pivots": 3},
    "select-divprune": {"block": 2},
    "select-fastervlm": {"block": 2},
    "select-fopru": {"block": 2},
    "select-hired": {"block": 2},
    "tomesd": {"ratio": 0.5},
    "expedit": {"keep_rate": 0.5, "start": 1, "stop": 3, "window": 3},
    "select-vtc-cls": {"block": 2, "layers": 2},
    "tokenlearner-vit": {"tokens": 4, "block": 2},
}
"""For the others."""
FAMILIES = {
    "ViT, DeiT": ("deit_small_patch16_224", "deit"),
    "distilled DeiT": ("deit_small_distilled_patch16_224", "deit-distilled"),
    "DeiT-III": ("deit3_small_patch16_224", "deit3"),
    "MAE": ("vit_base_patch16_224.mae", "mae"),
    "DINOv2": ("vit_small_patch14_dinov2", "dinov2"),
    "DINOv2 with registers": ("vit_small_patch14_reg4_dinov2", "dinov2-registers"),
    "DINOv3": ("vit_small_patch16_dinov3", "dinov3"),
    "EVA": ("eva_giant_patch14_224", "eva"),
    "EVA-02": ("eva02_base_patch14_448", "eva02"),
    "BEiT": ("beit_base_patch16_224", "beit"),
    "SigLIP": ("vit_base_patch16_siglip_224", "siglip"),
    "open_clip CLIP": ("clip:ViT-B-16", "open-clip"),
    "open_clip SigLIP": ("clip:ViT-B-16-SigLIP", "clip-timm"),
    "SWAG": ("", "swag"),
    "LV-ViT": ("", "lv-vit"),
}
"""By the name that people know: an example that the command line knows by name, and the small model here."""


def reduced(method: ReducerMethod, model: nn.Module, attention: str = "fused", **changes: Any) -> ReducedModel:
    """A method's reduction of `model`, with small settings."""
    asked = method.settings(**SETTINGS.get(method.id, STAGES) | changes)
    torch.manual_seed(0)  # weights of a method's own are the same in every build
    return method.build(model, asked, attention=attention)
