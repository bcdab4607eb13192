"""ToMe at 3-6-9 against its release's vectors, and its refusal of budgets that one matching cannot reach."""

import pytest

from reference_impls.reducers import tome_3stage
from reference_impls.reducers.tome_3stage import Tome3StageSettings
from tests import vector_case
from tests.reference_impls import vits
from tokenmark.contracts import BudgetError


@pytest.mark.parametrize(
    ("name", "attention", "clip"),
    [("kr50", "fused", True), ("kr50", "eager", True), ("kr25-clipped", "fused", True), ("list", "fused", False)],
)
def test_equals_the_release(name, attention, clip):
    vector = vector_case.load(f"tome-3stage__{name}")
    model = vits.of_vector(vector)
    blocks = tuple(vector["config"]["reduction_loc"])
    settings = Tome3StageSettings(keep_rate=vits.keep_rate_of(vector), blocks=blocks, allow_clip=clip)
    reduced = tome_3stage.build(model, settings, attention=attention)
    found = vits.outputs(reduced, vector_case.inputs(vector)["image"])
    for block in blocks:
        found[f"assignment{block}"] = vits.step_map(found, block, reduced.schedule[block].attention)[:, 1:] - 1
    vector_case.check(vector, **{key: found[key] for key in vector["outputs"]})
    assert [block.mlp for block in reduced.schedule] == found["tokens_per_block"].tolist()


@pytest.mark.parametrize(("rate", "got"), [(0.5, r"\[98, 49, 25\]"), (0.25, r"\[98, 61, 52\]")])
def test_refuses_a_clipped_budget_and_says_what_it_would_leave(rate, got):
    model = vits.of_vector(vector_case.load("tome-3stage__kr50"))
    with pytest.raises(BudgetError, match=f"would leave {got} patches"):
        tome_3stage.build(model, Tome3StageSettings(keep_rate=rate))
