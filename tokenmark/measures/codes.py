"""What a code costs and how much of its codebook it uses."""

from collections.abc import Sequence

import numpy as np

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


class Codebook:
    """Histogram of codes: use (share of entries seen), entropy in bits, and perplexity 2^entropy."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        if len(sizes) != 1:
            raise MethodError(
                "codebook statistics need a tokenizer with one codebook; leave out the measure 'codebook'"
            )
        self._counts = np.zeros(sizes[0], np.int64)
        self._images = 0

    def update(self, tokens: Tokens) -> None:
        """Count the codes of one batch, those beyond each image's length left out."""
        assert tokens.codes is not None  # noqa: S101  a codebook size was given
        codes, lengths = tokens.codes.cpu().numpy(), tokens.lengths.cpu().numpy()
        kept = codes[np.arange(codes.shape[1])[None] < lengths[:, None]]
        self._counts += np.bincount(kept.reshape(-1), minlength=len(self._counts))
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
        shares = self._counts[self._counts > 0] / max(self._counts.sum(), 1)
        entropy = float(-(shares * np.log2(shares)).sum()) + 0.0  # + 0.0 turns -0.0 into 0.0
        numbers = {
            "codebook_use": float((self._counts > 0).mean()),
            "codebook_entropy": entropy,
            "codebook_perplexity": 2.0**entropy,
        }
        return [Value(name=name, value=value, n=self._images) for name, value in numbers.items()]
