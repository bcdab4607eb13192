"""How complex an image is, 1 to 9: from its caption by a list of words, or from its pixels.

CAT (arXiv 2501.03120) lets a large language model read a caption and answers to questions about the image.
No language model is here. The rules below stand in for it, and are nobody's but this suite's: they score what the
paper's questions ask for (writing, faces, many things), in the paper's range.
"""

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from reference_impls.layers.precision import at_least_float32
from tokenmark.contracts import MethodError

__all__ = ["caption_score", "caption_scores", "check_scores", "pixel_scores"]

LEAST, MOST = 1, 9


def _words(text: str) -> frozenset[str]:
    """The different words of a text, in lower case."""
    return frozenset(re.findall(r"[a-z]+", text.lower()))


WRITING = _words("text words letters writing written sign label poster page book newspaper chart menu logo")
PEOPLE = _words("face faces person people man men woman women child children boy girl player crowd")
MANY = _words("many several crowd crowded group pile rows detailed intricate cluttered busy pattern texture")
EMPTY = _words("a an the of in on at by to with and or is are was were be it its this that there some for from as into")

WORDS_PER_POINT, MOST_POINTS_OF_WORDS = 3, 4
STEEPEST = 0.1
"""Mean difference of neighbouring pixels that scores highest."""


def caption_score(caption: str) -> int:
    """Complexity, 1 to 9, of a caption; answers to questions are sentences of it like any other.

    A point per three different words of content, up to four; two for writing, one for people, one for many things.
    """
    words = _words(caption) - EMPTY
    points = min(len(words) // WORDS_PER_POINT, MOST_POINTS_OF_WORDS)
    points += 2 * bool(words & WRITING) + bool(words & PEOPLE) + bool(words & MANY)
    return LEAST + points


def caption_scores(captions: Sequence[str]) -> Tensor:
    """`caption_score` of each, int64 `(B,)`."""
    return torch.tensor([caption_score(caption) for caption in captions], dtype=torch.int64)


def pixel_scores(images: Tensor) -> Tensor:
    """Complexity `(B,)`, 1 to 9, of images `(B, 3, H, W)` in [0, 1]: how much neighbouring pixels differ.

    Not CAT: the paper argues against just such signals, which take repeated patterns for content.
    """
    exact = at_least_float32(images)
    down, right = exact.diff(dim=2).abs().mean((1, 2, 3)), exact.diff(dim=3).abs().mean((1, 2, 3))
    return LEAST + (MOST - LEAST) * ((down + right) / (2 * STEEPEST)).clamp(max=1.0)


def check_scores(scores: Tensor, batch: int) -> Tensor:
    """The scores; MethodError unless they are `(batch,)` numbers of 1 to 9."""
    if tuple(scores.shape) != (batch,) or scores.is_complex() or scores.dtype == torch.bool:
        raise MethodError(f"complexity must be ({batch},) numbers, got {scores.dtype} {tuple(scores.shape)}")
    if not ((scores >= LEAST) & (scores <= MOST)).all():
        raise MethodError(f"complexity must be {LEAST} to {MOST}")
    return scores
