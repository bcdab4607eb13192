"""Small vision transformers for the reducers' tests: of a vector's config, or with every branch made non-trivial."""

from functools import partial
from typing import Any

import torch
from timm import create_model
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from reference_impls.layers.vit_driver import ReducedViT
from reference_impls.parity._taps import tapped
from tests import vector_case
from tokenmark.contracts import BlockTokens

SMALL = {"embed_dim": 32, "depth": 4, "num_heads": 2, "num_classes": 5}

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
                value.copy_(noise / value[0].numel() ** 0.5 if name not in {"pos_embed", "cls_token"} else noise)
            else:
                value.copy_((1.0 if name.endswith(("weight", "gamma")) else 0.0) + 0.3 * noise)
    return model


def images_for(model: nn.Module, batch: int = 2) -> Tensor:
    """Random images of the model's size."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 3, *model.patch_embed.img_size, generator=generator, dtype=torch.float64)


def of_vector(vector: dict[str, Any]) -> nn.Module:
    """The timm model of a vector's config, filled by its official parameter names."""
    config = vector["config"]
    kind = VisionTransformerDistilled if config.get("distilled") else VisionTransformer
    sizes = ("img_size", "patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio", "qkv_bias", "num_classes")
    model = kind(
        **{size: config[size] for size in sizes},
        norm_layer=partial(nn.LayerNorm, eps=config["norm_eps"]),
        global_pool="avg" if config.get("global_pool") else "token",
    )
    return vector_case.fill(model, vector)


def outputs(reduced: ReducedViT, images: Tensor) -> dict[str, Tensor]:
    """What every reducer's vector records, under its names; `source{i}` is beside it where tokens are after block i."""
    vit = reduced.model
    pooled = {"pooled": vit.fc_norm} if vit.global_pool == "avg" else {"normed": vit.norm}
    with torch.no_grad(), tapped(pooled) as seen:
        trace = reduced.trace(images)
    found = {f"block{i}": x for i, x in enumerate(trace.tokens)}
    found |= {f"source{i}": source for i, source in enumerate(trace.sources)}
    found |= {"logits": trace.logits, "size": trace.size}
    found["tokens_per_block"] = torch.tensor([x.shape[1] for x in trace.tokens])
    if "pooled" in seen:
        return found | {"features": seen["pooled"]}
    names = ("features_cls", "features_dist") if vit.num_prefix_tokens == 2 else ("features",)
    return found | {name: seen["normed"][:, i] for i, name in enumerate(names)}


def step_map(found: dict[str, Tensor], block: int, tokens: int) -> Tensor:
    """For each of the `tokens` tokens that enter `block` its place after it, `(B, tokens)`; -1 where it was dropped."""
    after = found[f"source{block}"]
    before = found[f"source{block - 1}"] if block else torch.arange(after.shape[1]).expand_as(after)
    steps = torch.full((after.shape[0], tokens), -1)
    for image in range(after.shape[0]):
        alive = before[image] >= 0
        steps[image, before[image][alive]] = after[image][alive]
    return steps


def seen_schedule(reduced: ReducedViT, images: Tensor) -> tuple[BlockTokens, ...]:
    """The token counts that the norms before every attention and every MLP really see."""
    blocks = reduced.model.blocks
    modules = {f"{part}{i}": getattr(block, part) for i, block in enumerate(blocks) for part in ("norm1", "norm2")}
    with torch.no_grad(), tapped(modules) as seen:
        reduced(images)
    return tuple(BlockTokens(seen[f"norm1{i}"].shape[1], seen[f"norm2{i}"].shape[1]) for i in range(len(blocks)))


def keep_rate_of(vector: dict[str, Any]) -> float | tuple[float, ...]:
    """The `keep_rate` setting of a vector: one rate for all stages, or fractions, also for counts of 196 patches."""
    rates = vector["config"]["keep_rate"]
    if len(rates) == 1:
        return rates[0]
    # Half a patch more, so that int(196 * fraction) is the count whatever the division rounds to.
    return tuple((rate + 0.5) / 196 if rate >= 1 else rate for rate in rates)
