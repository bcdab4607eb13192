"""FasterVLM's selection: Top-K's score, asked once."""

import torch

from reference_impls.layers.single_stage import SingleStage
from reference_impls.layers.stages import Stages
from reference_impls.reducers import select_fastervlm, topk
from tests.reference_impls import vits


def kept(method, settings, model, images):
    """Which original tokens are left of every image."""
    return (method.build(model, settings).trace(images).sources[-1] >= 0).tolist()


def test_keeps_the_patches_that_top_k_keeps_in_one_block():
    model = vits.served("dinov2-registers")
    images = vits.images_for(model, 4)
    once = kept(select_fastervlm.METHOD, SingleStage(0.4, 2), model, images)
    assert once == kept(topk.METHOD, Stages((0.4,), (2,)), model, images)


def test_equals_plain_loops():
    model = vits.served("vit")
    images = vits.images_for(model)
    got = kept(select_fastervlm.METHOD, SingleStage(0.5, 0), model, images)
    attention = model.blocks[0].attn
    with torch.no_grad():
        x = model.blocks[0].norm1(model._pos_embed(model.patch_embed(images)))
        q, k, _ = attention.qkv(x).unflatten(2, (3, 2, 16)).unbind(2)
    for image in range(2):
        score = torch.zeros(17, dtype=torch.float64)
        for head in range(2):
            score += (k[image, :, head] @ q[image, 0, head] * 16**-0.5).softmax(dim=0)
        best = sorted(range(1, 17), key=lambda i, score=score: -score[i].item())[:8]
        assert [i for i, stays in enumerate(got[image]) if stays] == [0, *sorted(best)]
