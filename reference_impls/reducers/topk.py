"""Top-K: in three blocks, keep the patches that the class token attends to most, and drop the others."""

from reference_impls.layers.reduction import TokenState, select, with_prefix
from reference_impls.layers.stages import HAURUM, KEEP_RATE, StagedReduction, Stages
from reference_impls.layers.vit_attention import Attended
from reference_impls.layers.vit_driver import reducer


class TopKByClassAttention(StagedReduction):
    """Ranks patches by the class token's attention in the reducing block itself, averaged over heads."""

    needs_class_token = True

    def after_attention(self, block: int, state: TokenState, seen: Attended) -> TokenState:
        """Keep the best patches, in falling score; of equal ones the earlier."""
        if not self.reduces_in(block):
            return state
        score = seen.class_row().mean(dim=1)[:, self.prefix :]
        best = score.argsort(dim=1, descending=True, stable=True)[:, : self.schedule[block].mlp - self.prefix]
        return select(state, with_prefix(best, self.prefix))


METHOD = reducer(
    TopKByClassAttention,
    id="topk",
    title="Top-K by class attention",
    idea="In three blocks, keep the patches that the class token attends to most and drop the others.",
    acts="3 blocks, after attention",
    paper=HAURUM,
    settings=Stages,
    knob=KEEP_RATE,
)
