"""The pixels behind each patch token, for methods that look at them; and vocabularies of such patches."""

from collections.abc import Iterable
from math import prod
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file
from torch import Tensor

from reference_impls.layers.families.base import Backbone
from tokenmark.contracts import MethodError, UnsupportedBackboneError

__all__ = ["fit_vocabulary", "patch_width", "pixel_patches", "read_vocabulary"]


def patch_width(backbone: Backbone) -> int:
    """Pixel values of one patch: channels times rows times columns.

    Raises:
        UnsupportedBackboneError: the grid of patches does not divide the image.
    """
    (_, *sides), grid = backbone.image_shape, backbone.grid
    if any(side % count for side, count in zip(sides, grid, strict=True)):
        raise UnsupportedBackboneError(
            f"this model's {grid[0]} x {grid[1]} patches do not divide its {sides[0]} x {sides[1]} pixels: a patch's "
            "pixels are not told by its place"
        )
    return prod(backbone.image_shape) // backbone.patches


def pixel_patches(images: Tensor, grid: tuple[int, int]) -> Tensor:
    """Images `(B, C, H, W)` as `(B, rows * columns, C * h * w)`: each patch by channel, row, column."""
    split: Tensor = images.unflatten(3, (grid[1], -1)).unflatten(2, (grid[0], -1))
    return split.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def fit_vocabulary(
    batches: Iterable[Tensor], grid: tuple[int, int], words: int, *, batch_size: int = 1024, seed: int = 0
) -> np.ndarray:
    """A vocabulary of `words` patches, float32 `(words, C * h * w)`: the centres of a mini-batch K-means.

    `batches` are images `(B, C, H, W)` as the model takes them (normalised), cut in `grid` rows and columns. Patches
    are learned from in batches of at least `batch_size` and `words` (the last, if it is smaller, is left out unless it
    is the only one). Save it by `numpy.save`. One seed gives one vocabulary.

    Raises:
        MethodError: there are fewer patches than words.
    """
    from sklearn.cluster import MiniBatchKMeans  # noqa: PLC0415  scikit-learn takes a second to import

    kmeans = MiniBatchKMeans(words, batch_size=batch_size, random_state=seed, n_init=1)
    waiting, fitted = np.zeros((0, 0), np.float32), False
    for images in batches:
        patches = pixel_patches(images, grid).flatten(0, 1).float().cpu().numpy()
        waiting = patches if len(waiting) == 0 else np.concatenate((waiting, patches))
        if len(waiting) >= max(batch_size, words):
            kmeans.partial_fit(waiting)
            waiting, fitted = waiting[:0], True
    if not fitted:
        if len(waiting) < words:
            raise MethodError(f"{len(waiting)} patches are too few for {words} words: give more images")
        kmeans.partial_fit(waiting)
    return np.asarray(kmeans.cluster_centers_, dtype=np.float32)


def read_vocabulary(path: str, width: int) -> Tensor:
    """The words in a `.npy` file, or in the only tensor of a `.safetensors` file: float32 `(words, width)`.

    Raises:
        MethodError: no such file, not of these kinds, or not words of `width` values.
    """
    try:
        words = _read(Path(path))
    except (OSError, ValueError, EOFError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise MethodError(f"vocabulary {path} cannot be read as .npy or .safetensors: {reason}") from error
    if words.ndim != 2 or words.shape[1] != width or len(words) == 0 or not np.isfinite(words).all():
        raise MethodError(
            f"vocabulary {path} is {words.shape}: this model's patches need (words, {width}), all of them finite"
        )
    return torch.from_numpy(words.astype(np.float32))


def _read(path: Path) -> np.ndarray:
    if path.suffix == ".npy":
        return np.asarray(np.load(path, allow_pickle=False))
    if path.suffix != ".safetensors":
        raise ValueError("its name ends otherwise")
    tensors = load_file(path)
    if len(tensors) != 1:
        raise ValueError(f"it holds {len(tensors)} tensors, not one")
    return next(iter(tensors.values()))
