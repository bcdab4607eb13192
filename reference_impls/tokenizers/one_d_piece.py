"""One-D-Piece: a TiTok whose code can be cut anywhere, because training drops its tail."""

import torch
from torch import Tensor

from reference_impls.layers.quantizers import TrainOutput
from reference_impls.tokenizers.titok import MINI_CONFIG, TiTok, legacy_config, release_arguments
from tokenmark.contracts import Paper, Release, TokenizerMethod, Variant

__all__ = ["METHOD", "OneDPiece"]


class OneDPiece(TiTok):
    """One-D-Piece (arXiv 2501.10064): legacy TiTok in every respect, trained with Tail Token Drop.

    `encode(images, tokens=k)` gives the first k codes, and `decode` takes any number of them: the decoder's
    sequence gets shorter, and nothing stands in for the missing tokens (one_d_piece.py, `length`).
    """

    variable_length = True

    def draw_length(self, generator: torch.Generator | None = None) -> int:
        """Tail Token Drop (section 3.2): how many tokens a training batch keeps, uniform in 1 to N."""
        drawn = torch.randint(1, self.max_tokens + 1, (), generator=generator)
        return int(drawn)

    def forward_train_dropped(self, images: Tensor, generator: torch.Generator | None = None) -> TrainOutput:
        """`forward_train` with Tail Token Drop: one length, drawn from a CPU `generator`, for the whole batch."""
        return self.forward_train(images, tokens=self.draw_length(generator))


S256_COMMIT = "250e95dcb0b29fcfeef4396d1788a9dbd18ca455"
"""The commit that others have pinned before us; of the other sizes none is known."""


def _release(size: str, revision: str | None = None) -> Release:
    return Release(f"turing-motors/One-D-Piece-{size}-256", revision=revision, licence="Apache-2.0")


METHOD = TokenizerMethod(
    id="one-d-piece",
    title="One-D-Piece",
    idea="Dropping a random tail of the tokens in training puts what matters first, so that any prefix decodes",
    paper=Paper(
        title="One-D-Piece: Image Tokenizer Meets Quality-Controllable Compression",
        authors="Keita Miwa, Kento Sasaki, Hidehisa Arai, Tsubasa Takahashi, Yu Yamaguchi",
        year=2025,
        url="https://arxiv.org/abs/2501.10064",
    ),
    build=OneDPiece,
    from_release=release_arguments,
    variants={
        "s256": Variant(config=legacy_config("small", 256), release=_release("S", S256_COMMIT)),
        "b256": Variant(config=legacy_config("base", 256), release=_release("B")),
        "l256": Variant(config=legacy_config("large", 256), release=_release("L")),
        "mini-16": Variant(
            config=MINI_CONFIG,
            weights="one-d-piece-mini-16",
            note="1 to 16 tokens of 32x32 images, trained in this repository",
        ),
    },
)
