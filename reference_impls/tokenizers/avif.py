"""AVIF: a plain codec of today, from the key frames of a video format."""

from PIL import features

from reference_impls.layers.pillow_codec import PillowCodec, codec_variants
from tokenmark.contracts import MethodError, Paper, TokenizerMethod

__all__ = ["METHOD", "build"]


def build(*, quality: int, image_size: int = 32) -> PillowCodec:
    """Lossy AVIF at a `quality` of 0 to 100, for square images of `image_size` pixels.

    Raises MethodError for other qualities or sizes, and where Pillow was built without AVIF.
    """
    if not features.check("avif"):
        raise MethodError("this Pillow reads and writes no AVIF: install Pillow 11.3 or newer from its own wheels")
    return PillowCodec("AVIF", image_size, {"quality": quality})


METHOD = TokenizerMethod(
    id="avif",
    title="AVIF",
    idea="A key frame of AV1: predicted blocks of many shapes, transforms, and adaptive arithmetic coding",
    paper=Paper(
        title="A Technical Overview of AV1",
        authors="Jingning Han, Bohan Li, Debargha Mukherjee, Ching-Han Chiang, Adrian Grange, Cheng Chen, Hui Su,"
        " Sarah Parker, Sai Deng, Urvang Joshi, Yue Chen, Yunqing Wang, Paul Wilkins, Yaowu Xu, James Bankoski",
        year=2021,
        url="https://arxiv.org/abs/2008.06091",
    ),
    build=build,
    variants=codec_variants((10, 30, 50, 75, 95)),
)
