"""DynamicViT: before three blocks, learned predictors say which patches to keep."""

from torch import Tensor

from reference_impls.layers.distillation import logit_distillation, token_distillation
from reference_impls.layers.predicted_pruning import PredictedPruning
from reference_impls.layers.stages import KEEP_RATE, Stages
from reference_impls.layers.vit_driver import reducer
from tokenmark.contracts import Layout, Paper, Variant

DYNAMICVIT = Paper(
    title="DynamicViT: Efficient Vision Transformers with Dynamic Token Sparsification",
    authors="Rao, Zhao, Liu, Lu, Zhou, Hsieh",
    year=2021,
    url="https://arxiv.org/abs/2106.02034",
)
LAYOUT = Layout(
    wrappers=("model",), renames=((r"^(score_predictor\.)", r"reduction.\1"), (r"^(?!reduction\.)", "model."))
)
DRIVE = "on the Google Drive that the README of raoyongming/DynamicViT points to"


class DistilledPruning(PredictedPruning):
    """Pruning by predictors that are trained beside the whole model, which teaches."""

    def losses(self, logits: Tensor, tokens: Tensor, teacher_logits: Tensor, teacher_tokens: Tensor) -> Tensor:
        """What is added to the classification loss of the last training pass, weighed as in section 4.1.

        Twice the ratio loss, and a half of each distillation. `logits` and `teacher_logits` are `(B, classes)`;
        `tokens` and `teacher_tokens` `(B, patches, C)` are the last block's patches, after the final norm in the
        release. The release weighs the ratio by 5 for DeiT-B.

        Raises:
            MethodError: there was no training pass, or no stage prunes.
        """
        ratio = self.ratio_loss()
        told = token_distillation(tokens, teacher_tokens, self.decisions[-1])
        return 2.0 * ratio + 0.5 * logit_distillation(logits, teacher_logits) + 0.5 * told


METHOD = reducer(
    DistilledPruning,
    id="dynamicvit",
    title="DynamicViT",
    idea="Before three blocks, a learned predictor of every patch and of their mean says which patches to keep.",
    acts="before 3 blocks",
    paper=DYNAMICVIT,
    settings=Stages,
    knob=KEEP_RATE,
    trained=True,
    variants={
        f"deit-{size[0]}-0.7": Variant(
            config={"model": f"deit_{size}_patch16_224.fb_in1k", "settings": {"keep_rate": 0.7}}, note=DRIVE
        )
        for size in ("small", "base")
    },
    layout=LAYOUT,
)
