"""Top-K against its release's vectors, and its need of a class token."""

import pytest
import torch

from reference_impls.layers.stages import Stages
from reference_impls.reducers import topk
from tests.reference_impls import vits
from tokenmark.contracts import UnsupportedBackboneError


def test_counts_at_a_keep_rate_of_070():
    with torch.device("meta"):
        model = vits.VisionTransformer(embed_dim=16, num_heads=2)
    schedule = topk.METHOD.build(model, Stages(keep_rate=0.7)).schedule
    assert [schedule[block].mlp for block in (3, 6, 9)] == [138, 97, 68]


def test_equal_scores_keep_the_earliest_patches():
    model = vits.served("vit")
    with torch.no_grad():
        model.blocks[0].attn.qkv.weight.zero_()
        model.blocks[0].attn.qkv.bias.zero_()
    trace = topk.METHOD.build(model, Stages(keep_rate=0.5, blocks=(0,))).trace(vits.images_for(model, 1))
    assert trace.sources[0][0].tolist() == [*range(9), *[-1] * 8]


def test_keeps_registers_and_refuses_models_without_a_class_token():
    model = vits.served("dinov2-registers")
    trace = topk.METHOD.build(model, Stages(keep_rate=0.3, blocks=(1, 2))).trace(vits.images_for(model))
    assert trace.sources[-1][:, :5].tolist() == [list(range(5))] * 2
    with pytest.raises(UnsupportedBackboneError, match="no class token"):
        topk.METHOD.build(vits.served("average"), Stages(blocks=(1,)))
