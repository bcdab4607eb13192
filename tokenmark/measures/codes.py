"""What a code costs and how much of its codebook it uses."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from tokenmark.contracts import Tokens
from tokenmark.errors import MethodError
from tokenmark.measures.base import PerImage, State, added, concatenated, mean_value
from tokenmark.records import Value


class Rate:
    """Bits per pixel, and tokens per image, as the code itself counts them."""

    def __init__(self, pixels: int) -> None:
        self._pixels = pixels
        self._bits, self._lengths = PerImage(), PerImage()

    def update(self, tokens: Tokens) -> None:
        """Add one batch."""
        self._bits.add(tokens.bits.double().cpu().numpy())
        self._lengths.add(tokens.lengths.double().cpu().numpy())

    def state(self) -> State:
        """Bits and lengths of every image so far."""
        return {"bits": self._bits.all(), "lengths": self._lengths.all()}

    def load(self, state: State) -> None:
        """Take over an unfinished run's."""
        self._bits.replace(state["bits"])
        self._lengths.replace(state["lengths"])

    def join(self, states: Sequence[State]) -> State:
        """Bits and lengths, one after the other."""
        return concatenated(states)

    def compute(self) -> list[Value]:
        """`bits_per_pixel` and `tokens_per_image`."""
        return [
            mean_value("bits_per_pixel", self._bits.all() / self._pixels),
            mean_value("tokens_per_image", self._lengths.all()),
        ]


MOST_CODES = 1 << 24
"""The most entries of a codebook that are counted one by one."""


class Codebook:
    """Histogram of codes: use (share of entries seen), entropy in bits, and perplexity 2^entropy.

    Where a token has several codes, each of its own codebook, the means over codebooks are given.
    """

    def __init__(self, sizes: tuple[int, ...]) -> None:
        if not sizes:
            raise MethodError("codebook statistics need integer codes; leave out the measure 'codebook'")
        if sum(sizes) > MOST_CODES:
            raise MethodError(f"a codebook of {max(sizes):,} entries is not counted: leave out the measure 'codebook'")
        self._starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self._counts = np.zeros(self._starts[-1], np.int64)
        self._images = 0

    def update(self, tokens: Tokens) -> None:
        """Count the codes of one batch, those beyond each image's length left out."""
        assert tokens.codes is not None  # noqa: S101  a codebook size was given
        codes, lengths = tokens.codes.cpu().numpy(), tokens.lengths.cpu().numpy()
        kept = codes[np.arange(codes.shape[1])[None] < lengths[:, None]]
        kept = kept.reshape(len(kept), -1)
        if ((kept < 0) | (kept >= np.diff(self._starts))).any():
            raise MethodError("the method gave a code that lies beyond its codebook: its code or its sizes are broken")
        shifted = kept + self._starts[:-1]
        self._counts += np.bincount(shifted.reshape(-1), minlength=len(self._counts))
        self._images += len(codes)

    def state(self) -> State:
        """Counts so far."""
        return {"counts": self._counts.copy(), "images": np.asarray(self._images)}

    def load(self, state: State) -> None:
        """Take over an unfinished run's counts."""
        self._counts = state["counts"].astype(np.int64)
        self._images = int(state["images"])

    def join(self, states: Sequence[State]) -> State:
        """Counts added up."""
        return added(states)

    def compute(self) -> list[Value]:
        """`codebook_use`, `codebook_entropy` (bits) and `codebook_perplexity`; n is the number of images."""
        books = [self._counts[a:b] for a, b in pairwise(self._starts)]
        entropy = float(np.mean([_entropy(counts) for counts in books]))
        numbers = {
            "codebook_use": float(np.mean([(counts > 0).mean() for counts in books])),
            "codebook_entropy": entropy,
            "codebook_perplexity": 2.0**entropy,
        }
        return [Value(name=name, value=value, n=self._images) for name, value in numbers.items()]


def _entropy(counts: npt.NDArray[np.int64]) -> float:
    shares = counts[counts > 0] / max(counts.sum(), 1)
    return float(-(shares * np.log2(shares)).sum()) + 0.0  # + 0.0 turns -0.0 into 0.0
