"""JPEG: the codec that every learned tokenizer should be held against at equal bytes."""

from reference_impls.layers.pillow_codec import PillowCodec, codec_variants
from tokenmark.contracts import Paper, TokenizerMethod

__all__ = ["METHOD", "build"]


def build(*, quality: int, image_size: int = 32) -> PillowCodec:
    """Baseline JPEG at a `quality` of 0 to 100 in libjpeg's scale, for square images of `image_size` pixels.

    Colour is subsampled as Pillow does by default (4:2:0), and Huffman tables are fitted to the image, which
    costs no quality and saves bytes. Raises MethodError for other qualities or sizes.
    """
    return PillowCodec("JPEG", image_size, {"quality": quality, "optimize": True})


METHOD = TokenizerMethod(
    id="jpeg",
    title="JPEG",
    idea="Quantised cosine transforms of 8x8 blocks, run-length and Huffman coded",
    paper=Paper(
        title="The JPEG Still Picture Compression Standard",
        authors="Gregory K. Wallace",
        year=1992,
        url="https://doi.org/10.1109/30.125072",
    ),
    build=build,
    variants=codec_variants((10, 30, 50, 75, 95)),
)
