"""What a tokenizer makes of the training images, each seen in several ways, so that a generator need not wait for it.

LlamaGen (arXiv 2406.06525, section 3.1) trains on codes of ten crops that were made before, MAR (arXiv 2406.11838) on
stored moments: here the views are small affine changes, and encoded when they are first wanted.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from recipes.mini.training import Batch, augmented


class Views:
    """Encoded views of images, which depend on the image's and the view's number alone.

    Args:
        encode: What is kept of images `(B, 3, H, W)`: a row `(B, ...)` of each.
        count: Views of an image.
    """

    def __init__(self, encode: Callable[[Tensor], Tensor], count: int) -> None:
        self._encode, self._count = encode, count
        self._rows: dict[int, Tensor] = {}

    def of(self, batch: Batch) -> Tensor:
        """A row of each image `(B, ...)`, of a view that the batch's generator draws."""
        views = torch.randint(self._count, (len(batch.indices),), generator=batch.generator)
        keys: list[int] = (batch.indices.cpu() * self._count + views).tolist()
        missing = {key: place for place, key in enumerate(keys) if key not in self._rows}
        if missing:
            seen = [
                augmented(batch.images[place : place + 1], torch.Generator().manual_seed(key))
                for key, place in missing.items()
            ]
            images = torch.cat(seen).contiguous(memory_format=torch.channels_last)
            with torch.no_grad():
                self._rows.update(zip(missing, self._encode(images), strict=True))
        return torch.stack([self._rows[key] for key in keys])
