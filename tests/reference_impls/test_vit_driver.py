"""The driver runs every backbone that it serves as timm does, and refuses every other with its reason."""

from types import SimpleNamespace

import open_clip
import pytest
import torch
from timm import create_model
from timm.layers import DiffAttention
from timm.models.eva import Eva
from timm.models.vision_transformer import ParallelScalingBlock, ResPostBlock, VisionTransformer
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from reference_impls.layers.families.timm_vit import TimmAttention
from reference_impls.layers.vit_attention import Looks, attend, mix, with_size_channels
from reference_impls.reducers import none, tome
from tests.reference_impls import vits
from tokenmark.contracts import MethodError, NoSettings, UnsupportedBackboneError

TINY = {"img_size": 32, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 3}


@pytest.mark.parametrize("attention", ["fused", "eager"])
@pytest.mark.parametrize("name", vits.SERVED)
def test_equals_the_untouched_model(name, attention):
    model = vits.served(name)
    images = vits.images_for(model)
    with torch.no_grad():
        expected = model(images)
        got = none.METHOD.build(model, NoSettings(), attention=attention)(images)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    assert expected.std() > 1e-3


@pytest.mark.parametrize(
    "name",
    ["deit3", "dinov2-registers", "qk-norm", "siglip", "gated-no-position", "eva02", "dinov3", "beit", "clip-custom"],
)
def test_every_parameter_takes_part(name):
    """No branch can be skipped: each parameter that moves timm's logits gets the same gradient from the driver."""
    model = vits.served(name)
    images = vits.images_for(model, 1)
    expected = torch.autograd.grad(model(images).square().sum(), list(model.parameters()))
    got = torch.autograd.grad(none.METHOD.build(model, NoSettings())(images).square().sum(), list(model.parameters()))
    for (key, _), ours, theirs in zip(model.named_parameters(), got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-8, msg=key)


def test_leaves_the_model_as_it_was():
    model = vits.served("dinov2")
    images = vits.images_for(model)
    modules, keys = list(model.modules()), list(model.state_dict())
    with torch.no_grad():
        expected = model(images)
        reduced = tome.METHOD.build(model, tome.TomeSettings(r=2))
        reduced(images)
        assert torch.equal(model(images), expected)
    assert list(model.modules()) == modules
    assert [key.removeprefix("model.") for key in reduced.state_dict()] == keys


def test_mode_follows_the_model():
    model = VisionTransformer(proj_drop_rate=0.5, attn_drop_rate=0.5, drop_path_rate=0.5, **TINY)
    images = torch.randn(2, 3, 32, 32)
    reduced = none.METHOD.build(model.eval(), NoSettings())
    assert not reduced.training
    assert torch.equal(reduced(images), reduced(images))
    reduced.train()
    assert not torch.equal(reduced(images), reduced(images))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [12, 32])
def test_sizes_in_fused_attention_equal_the_written_out_form(dtype, width):
    """As extra key channels, which GPUs take, and as `attend` does it here, against softmax(logits + log size)."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 2, 17, width, generator=generator, dtype=torch.float64).to(dtype) for _ in range(3))
    size = torch.randint(1, 90, (2, 17), generator=generator).to(torch.promote_types(dtype, torch.float32))
    scale = width**-0.5
    logits = q.double() @ k.double().transpose(2, 3) * scale
    plain, expected = (
        (logits + bias).softmax(dim=3) @ v.double() for bias in (0.0, size.double().log()[:, None, None])
    )
    channels = scaled_dot_product_attention(*with_size_channels(q, k, v, size, scale), scale=scale)[..., :width]
    here = mix(SimpleNamespace(scale=scale, dropout=0.0), (q, k, v), size, None, "fused")[0]
    for got in (channels, here):
        error = (got.double() - expected).abs().max()
        assert error < {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
        assert (plain - expected).abs().max() > 2 * error


@pytest.mark.parametrize("size", [None, torch.arange(1.0, 19.0, dtype=torch.float64).reshape(2, 9)])
def test_class_row_and_received_are_the_same_fused_and_eager(size):
    model = vits.served("qk-norm")
    x = torch.randn(2, 9, 32, dtype=torch.float64)
    view = TimmAttention(model.blocks[0].attn)
    fused, eager = (attend(view, x, Looks(size), kind)[1] for kind in ("fused", "eager"))
    assert fused.rows is None
    torch.testing.assert_close(fused.class_row(), eager.class_row())
    torch.testing.assert_close(fused.received(), eager.received())
    torch.testing.assert_close(eager.received().sum(dim=1), torch.full((2,), 18.0, dtype=torch.float64))


class Subclass(VisionTransformer):
    """May override anything."""


def _with_block(**changes):
    return lambda: VisionTransformer(**TINY, **changes)


REFUSED = {
    "swin": (lambda: create_model("swin_tiny_patch4_window7_224"), "SwinTransformer is not served"),
    "convnext": (lambda: create_model("convnext_tiny"), "ConvNeXt is not served"),
    "relative positions": (lambda: create_model("vit_relpos_small_patch16_224"), "VisionTransformerRelPos is not"),
    "hybrid": (lambda: create_model("vit_tiny_r_s16_p8_224"), "HybridEmbed has no fixed grid"),
    "not a transformer": (lambda: nn.Linear(2, 2), "Linear is not served"),
    "subclass": (lambda: Subclass(**TINY), "Subclass is not served"),
    "post-norm": (_with_block(block_fn=ResPostBlock), "blocks of type ResPostBlock"),
    "parallel": (_with_block(block_fn=ParallelScalingBlock), "blocks of type ParallelScalingBlock"),
    "differential": (_with_block(attn_layer=DiffAttention), "attention of type DiffAttention"),
    "patch dropout": (_with_block(patch_drop_rate=0.5), "drops patches in training"),
    "no pooling": (_with_block(global_pool=""), "pooling ''"),
    "two poolings": (_with_block(global_pool="avgmax"), "pooling 'avgmax'"),
    "eva with post-norm": (lambda: Eva(**TINY, use_post_norm=True, norm_layer=nn.LayerNorm), "EvaBlockPostNorm"),
    "coca": (lambda: open_clip.create_model("coca_ViT-B-32", device="meta").visual, "its pooling is not defined"),
    "clip resnet": (lambda: open_clip.create_model("RN50", device="meta").visual, "ModifiedResNet is not served"),
    "clip of cosines": (lambda: vits.clip_tower(scaled_cosine_attn=True), "scaled cosines, which open_clip itself"),
    "clip as a whole": (lambda: open_clip.create_model("ViT-B-32", device="meta"), "CLIP is not served"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses_with_the_reason(case):
    make, reason = REFUSED[case]
    with torch.device("meta"):
        model = make()
    with pytest.raises(UnsupportedBackboneError, match=reason) as caught:
        none.METHOD.build(model, NoSettings())
    assert "\n" not in str(caught.value)


def test_refuses_a_compiled_model():
    with pytest.raises(UnsupportedBackboneError, match="not compiled"):
        none.METHOD.build(torch.compile(VisionTransformer(**TINY), backend="eager"), NoSettings())


def test_refuses_an_unknown_attention():
    with pytest.raises(MethodError, match="'fused' or 'eager'"):
        none.METHOD.build(VisionTransformer(**TINY), NoSettings(), attention="flash")
