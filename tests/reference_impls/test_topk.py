"""Top-K against its release's vectors, and its need of a class token."""

import pytest
import torch

from reference_impls.reducers import topk
from reference_impls.reducers.topk import TopKSettings
from tests import vector_case
from tests.reference_impls import vits
from tokenmark.contracts import UnsupportedBackboneError


@pytest.mark.parametrize(("name", "attention"), [("kr50", "fused"), ("kr50", "eager"), ("list", "fused")])
def test_equals_the_release(name, attention):
    vector = vector_case.load(f"topk__{name}")
    blocks = tuple(vector["config"]["reduction_loc"])
    settings = TopKSettings(keep_rate=vits.keep_rate_of(vector), blocks=blocks)
    reduced = topk.build(vits.of_vector(vector), settings, attention=attention)
    found = vits.outputs(reduced, vector_case.inputs(vector)["image"])
    for block in blocks:
        places = vits.step_map(found, block, reduced.schedule[block].attention)[:, 1:]
        count = reduced.schedule[block].mlp - 1
        found[f"kept{block}"] = torch.stack([(row.clamp(min=0) - 1).argsort()[-count:] for row in places])
    vector_case.check(vector, **{key: found[key] for key in vector["outputs"]})
    assert [block.mlp for block in reduced.schedule] == found["tokens_per_block"].tolist()


def test_counts_at_a_keep_rate_of_070():
    with torch.device("meta"):
        model = vits.VisionTransformer(embed_dim=16, num_heads=2)
    schedule = topk.build(model, TopKSettings(keep_rate=0.7)).schedule
    assert [schedule[block].mlp for block in (3, 6, 9)] == [138, 97, 68]


def test_equal_scores_keep_the_earliest_patches():
    model = vits.served("vit")
    with torch.no_grad():
        model.blocks[0].attn.qkv.weight.zero_()
        model.blocks[0].attn.qkv.bias.zero_()
    trace = topk.build(model, TopKSettings(keep_rate=0.5, blocks=(0,))).trace(vits.images_for(model, 1))
    assert trace.sources[0][0].tolist() == [*range(9), *[-1] * 8]


def test_keeps_registers_and_refuses_models_without_a_class_token():
    model = vits.served("dinov2-registers")
    trace = topk.build(model, TopKSettings(keep_rate=0.3, blocks=(1, 2))).trace(vits.images_for(model))
    assert trace.sources[-1][:, :5].tolist() == [list(range(5))] * 2
    with pytest.raises(UnsupportedBackboneError, match="no class token"):
        topk.build(vits.served("average"), TopKSettings(blocks=(1,)))
