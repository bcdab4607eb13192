"""ToMe at 3-6-9 against its release's vectors, and its refusal of budgets that one matching cannot reach."""

import pytest
import torch

from reference_impls.reducers import tome_3stage
from reference_impls.reducers.tome_3stage import Tome3StageSettings
from tests.reference_impls import vits
from tokenmark.contracts import BudgetError


@pytest.mark.parametrize(("rate", "got"), [(0.5, r"\[98, 49, 25\]"), (0.25, r"\[98, 61, 52\]")])
def test_refuses_a_clipped_budget_and_says_what_it_would_leave(rate, got):
    with torch.device("meta"):
        model = vits.VisionTransformer(embed_dim=16, num_heads=2)
    with pytest.raises(BudgetError, match=f"would leave {got} patches"):
        tome_3stage.METHOD.build(model, Tome3StageSettings(keep_rate=rate))
