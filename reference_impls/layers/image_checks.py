"""What a classifier of its own architecture asks of its images."""

from torch import Tensor

from tokenmark.contracts import MethodError

__all__ = ["check_image_shape", "check_tiling"]


def check_image_shape(images: Tensor, image_shape: tuple[int, int, int]) -> None:
    """Raise MethodError unless `images` are `(B, channels, H, W)` of `image_shape`, which positions were made for."""
    if images.ndim != 4 or tuple(images.shape[1:]) != image_shape:
        raise MethodError(
            f"images are {tuple(images.shape)}, this model takes (batch, {', '.join(map(str, image_shape))}): resize"
            " them, or build the model with their img_size"
        )


def check_tiling(img_size: int, patch_size: int, width: int, heads: int) -> None:
    """Raise MethodError unless patches tile the image, both in pixels, and heads divide the tokens' width."""
    if img_size % patch_size or width % heads:
        raise MethodError(
            f"patches of {patch_size} px must tile {img_size} px, and {heads} heads divide a width of {width}"
        )
