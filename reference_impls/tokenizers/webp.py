"""WebP: a newer plain codec, with less header than JPEG, which matters for small images."""

from reference_impls.layers.pillow_codec import PillowCodec, codec_variants
from tokenmark.contracts import Paper, TokenizerMethod

__all__ = ["METHOD", "build"]


def build(*, quality: int, image_size: int = 32) -> PillowCodec:
    """Lossy WebP at a `quality` of 0 to 100, for square images of `image_size` pixels.

    The encoder searches as hard as it can (method 6), so that the baseline is not a weak one. Raises MethodError
    for other qualities or sizes.
    """
    return PillowCodec("WEBP", image_size, {"quality": quality, "method": 6})


METHOD = TokenizerMethod(
    id="webp",
    title="WebP",
    idea="Blocks predicted from their neighbours as in VP8, the rest transformed and arithmetic coded",
    paper=Paper(
        title="WebP Image Format (RFC 9649)",
        authors="James Zern, Pascal Massimino, Jyrki Alakuijala",
        year=2024,
        url="https://www.rfc-editor.org/rfc/rfc9649",
    ),
    build=build,
    variants=codec_variants((10, 30, 50, 75, 95)),
)
