"""FasterVLM's rule: once, keep the patches that the class token attends to most.

Read: the abstract of the paper, and how a public toolkit for compressing vision-language models (LLMC, Apache-2.0)
does it: the class token's attention, averaged over heads, of the encoder's layer whose features are used (the last but
one in LLaVA), and its highest; kept tokens stay in their order. The layer is here the one that prunes. So this is
Top-K, in one block in place of three.

This is the selection rule alone, inside a vision encoder; not the vision-language system.
"""

from torch import Tensor

from reference_impls.layers.reduction import TokenState
from reference_impls.layers.single_stage import ONCE, SingleStage, SingleStageSelection, best, class_attention
from reference_impls.layers.stages import KEEP_RATE
from reference_impls.layers.vit_attention import Attended
from reference_impls.layers.vit_driver import reducer
from tokenmark.contracts import Paper


class FasterVlmRule(SingleStageSelection):
    """Ranks patches by the class token's attention in the pruning block."""

    needs_class_token = True

    def choose(self, state: TokenState, seen: Attended) -> Tensor:
        """The best by class attention."""
        del state
        return best(class_attention(seen, self.prefix), self.keep)


METHOD = reducer(
    FasterVlmRule,
    id="select-fastervlm",
    title="FasterVLM's selection",
    idea="Once, keep the patches that the class token attends to most.",
    acts=ONCE,
    paper=Paper(
        title="[CLS] Attention is All You Need for Training-Free Visual Token Pruning: Make VLM Inference Faster",
        authors="Zhang, Cheng, Lu, Zhuo, Wang, Cao, Guo, She, Zhang",
        year=2024,
        url="https://arxiv.org/abs/2412.01818",
    ),
    settings=SingleStage,
    knob=KEEP_RATE,
)
