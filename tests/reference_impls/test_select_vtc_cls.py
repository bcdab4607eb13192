"""VTC-CLS's selection: several blocks' class attention together, against plain loops."""

import pytest
import torch

from reference_impls.layers.single_stage import SingleStage
from reference_impls.reducers import select_fastervlm, select_vtc_cls
from reference_impls.reducers.select_vtc_cls import VtcClsSettings
from tests.reference_impls import vits
from tokenmark.contracts import BudgetError


def class_rows(model, images):
    """The class token's attention to every token in each block of the untouched model, averaged over heads."""
    x, rows = model._pos_embed(model.patch_embed(images)), []
    for block in model.blocks:
        q, k, _ = block.attn.qkv(block.norm1(x)).unflatten(2, (3, 2, 16)).permute(2, 0, 3, 1, 4)
        rows.append((q[:, :, :1] @ k.transpose(2, 3) * 16**-0.5).softmax(dim=3).squeeze(2).mean(dim=1))
        x = block(x)
    return rows


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_ranks_by_the_sum_over_the_last_blocks(layers):
    model = vits.served("vit")
    images = vits.images_for(model, 3)
    with torch.no_grad():
        rows = class_rows(model, images)
        settings = VtcClsSettings(keep_rate=0.4, block=2, layers=layers)
        source = select_vtc_cls.METHOD.build(model, settings).trace(images).sources[-1].tolist()
    for image in range(3):
        score = [sum(rows[block][image, token].item() for block in range(3 - layers, 3)) for token in range(17)]
        best = sorted(range(1, 17), key=lambda token, score=score: -score[token])[:6]
        assert [token for token, at in enumerate(source[image]) if at >= 0] == [0, *sorted(best)]


def test_one_block_alone_is_fastervlms_rule():
    model = vits.served("deit3")
    images = vits.images_for(model)
    with torch.no_grad():
        one = select_vtc_cls.METHOD.build(model, VtcClsSettings(layers=1))(images)
        assert torch.equal(one, select_fastervlm.METHOD.build(model, SingleStage())(images))


@pytest.mark.parametrize("layers", [0, -1, 4])
def test_refuses_more_blocks_than_there_are_up_to_the_pruning_one(layers):
    with pytest.raises(BudgetError, match="within 1 to 3"):
        select_vtc_cls.METHOD.build(vits.served("vit"), VtcClsSettings(block=2, layers=layers))
