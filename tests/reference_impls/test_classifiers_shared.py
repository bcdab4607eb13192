"""What holds for every classifier that reduces tokens by its own architecture."""

import pytest
import torch
from torch.func import functional_call

from tests.long import takes_long
from tokenmark import registry
from tokenmark.contracts import ClassifierMethod, MethodError

SMALL = {
    "agent-attention": {"img_size": 16, "patch_size": 4, "embed_dim": 8, "depth": 2, "num_heads": 2, "agent_layer": 1}
    | {"agent_num": [4, 4, 4, 4], "num_classes": 3},
    "dynamicvit-convnext": {"img_size": 32, "depths": (1, 1, 3, 1), "dims": (4, 4, 8, 4), "pruning_loc": (1, 2)}
    | {"sparse_ratio": (0.75, 0.5), "num_classes": 3},
    "dynamicvit-swin": {"img_size": 64, "embed_dim": 4, "depths": (1, 1, 3, 1), "num_heads": (1, 1, 2, 2)}
    | {"window_size": 2, "pruning_loc": (1, 2), "sparse_ratio": (0.75, 0.5), "num_classes": 3},
    "lookupvit": {"img_size": 16, "patch_size": 4, "embed_dim": 8, "depth": 2, "num_heads": 2, "side": 3}
    | {"num_classes": 3},
    "sparseformer": {"img_size": 16, "tokens": 5, "focus_dim": 8, "embed_dim": 16, "depth": 2, "num_classes": 3},
    "stvit": {"img_size": 20, "embed_dim": (4, 4, 4, 4), "depths": (1, 1, 1, 1), "num_heads": (1, 2, 1, 2)}
    | {"stoken_size": (4, 2, 1, 1), "n_iter": (2, 1, 1, 1), "layerscale": (True, False, True, False), "projection": 8}
    | {"num_classes": 3},
    "stvit-r": {"embed_dim": 4, "depths": (1, 1, 6, 1), "num_heads": (1, 1, 2, 2), "num_classes": 3},
    "t2t-vit": {"img_size": 32, "embed_dim": 8, "depth": 1, "num_heads": 2, "token_dim": 6, "num_classes": 3},
    "tokenlearner": {"img_size": 16, "patch_size": 4, "hidden_size": 8, "mlp_dim": 16, "num_layers": 3, "num_heads": 2}
    | {"num_tokens": 3, "tokenlearner_loc": 1, "num_classes": 3},
}
OTHERS = {
    "lookupvit": {"transposed": "probabilities", "pool": "both"},
    "sparseformer": {"pixels": "clip", "quick_gelu": True, "head_bias": False},
    "stvit-r": {"relative_pos": True, "use_conv_pos": True, "shortcut": True, "use_global": True},
    "t2t-vit": {"tokens_type": "transformer"},
    "tokenlearner": {"use_v11": False, "use_tokenfuse": True, "representation_size": 5, "classifier": "gsp"},
}
"""Arguments of a second form, for those that have one."""
LARGE = ("stvit-r",)
"""Whose least images are too large to check every gradient: their own tests check it block by block."""
FORMS = [(name, {}) for name in SMALL] + list(OTHERS.items())
EVERY = pytest.mark.parametrize(("method", "others"), FORMS)


def small(method, others, seed=0):
    torch.manual_seed(seed)
    return registry.get_as(ClassifierMethod, method).build(**SMALL[method] | others).double().eval()


def images_for(model, count=2):
    return torch.randn(count, *model.image_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@takes_long
@pytest.mark.parametrize("method", SMALL)
def test_gradients_are_right_and_reach_every_parameter(method):
    model = small(method, {})
    model.train()(images_for(model)).square().sum().backward()
    # a softmax takes no notice of some biases
    assert all(value.grad is not None and (value.ndim < 2 or value.grad.any()) for value in model.parameters())
    if method in LARGE:
        return
    model.eval()
    names = [name for name, _ in model.named_parameters()]

    def logits(images, *values):
        return functional_call(model, dict(zip(names, values, strict=True)), images)

    inputs = (images_for(model, 1).requires_grad_(), *(value for _, value in model.named_parameters()))
    assert torch.autograd.gradcheck(logits, inputs, fast_mode=True)


@EVERY
def test_images_do_not_see_each_other(method, others):
    model = small(method, others)
    images = images_for(model, 3)
    with torch.no_grad():
        whole = model(images)
        torch.testing.assert_close(model(images.flip(0)), whole.flip(0), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(model(images[:1]), whole[:1], rtol=1e-9, atol=1e-9)
        assert model(images[:0]).shape == (0, 3)


@EVERY
def test_runs_in_single_and_low_precision(method, others):
    model = small(method, others).float()
    images = images_for(model).float()
    with torch.no_grad():
        assert model(images).dtype == torch.float32
        with torch.autocast("cpu", torch.bfloat16):
            assert model(images).isfinite().all()
        assert model.bfloat16()(images.bfloat16()).dtype == torch.bfloat16


@EVERY
@pytest.mark.parametrize("shape", [(2, 3, 48, 48), (2, 3, 16, 32), (2, 1, 16, 16), (3, 16, 16)])
def test_refuses_images_of_another_size(method, others, shape):
    model = small(method, others)
    with pytest.raises(MethodError, match=r"this model takes \(batch, 3, ") as caught:
        model(torch.zeros(shape, dtype=torch.float64))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("method", "wrong", "reason"),
    [
        ("agent-attention", {"patch_size": 5}, "must tile"),
        ("agent-attention", {"num_heads": 3}, "divide"),
        ("agent-attention", {"agent_num": [4, 4, 4]}, "4 square numbers"),
        ("agent-attention", {"agent_num": [4, 4, 4, 8]}, "4 square numbers"),
        ("agent-attention", {"agent_num": [0, 4, 4, 4]}, "none below 1"),
        ("agent-attention", {"agent_layer": 3}, "at most 2"),
        ("agent-attention", {"depth": 13, "agent_layer": -1}, "at most 12"),
        ("lookupvit", {"patch_size": 5}, "must tile"),
        ("lookupvit", {"num_heads": 3}, "divide"),
        ("lookupvit", {"side": 5}, "1 to 4"),
        ("lookupvit", {"lookup_ratio": 0.0}, "above 0"),
        ("lookupvit", {"transposed": "weights"}, "logits or probabilities"),
        ("lookupvit", {"pool": "token"}, "compressed or both"),
        ("sparseformer", {"img_size": 18}, "multiple of 4"),
        ("sparseformer", {"tokens": 0}, "1 or more"),
        ("sparseformer", {"pixels": "imagenet"}, "inception or clip"),
        ("dynamicvit-convnext", {"img_size": 48}, "multiple of 32"),
        ("dynamicvit-convnext", {"pruning_loc": (2, 1)}, "must rise within 0 to 2"),
        ("dynamicvit-convnext", {"pruning_loc": (1, 3)}, "must rise within 0 to 2"),
        ("dynamicvit-convnext", {"sparse_ratio": (0.5,)}, "a sparse_ratio for each"),
        ("dynamicvit-swin", {"sparse_ratio": (0.5, 1.5)}, "between 0 and 1"),
        ("dynamicvit-swin", {"window_size": 3}, "do not tile"),
        ("t2t-vit", {"img_size": 40}, "multiple of 16"),
        ("t2t-vit", {"num_heads": 3}, "divide"),
        ("t2t-vit", {"tokens_type": "convolution"}, "performer or transformer"),
        ("tokenlearner", {"patch_size": 5}, "must tile"),
        ("tokenlearner", {"num_heads": 3}, "divide"),
        ("tokenlearner", {"tokenlearner_loc": 3}, "0 to 2"),
        ("tokenlearner", {"classifier": "token"}, "gap, gsp, gmp"),
    ],
)
def test_refuses_what_cannot_be_built(method, wrong, reason):
    with pytest.raises(MethodError, match=reason) as caught:
        small(method, wrong)
    assert "\n" not in str(caught.value)
