"""What a claim can be about: each quantity by its name in claims, and the values of records that measure it."""

import math
from dataclasses import dataclass
from typing import Literal

Family = Literal["structure", "quality", "speed", "other"]

AXES: dict[Family, tuple[str, ...]] = {
    "structure": ("resolution",),
    "quality": ("protocol", "data", "samples", "resolution", "precision", "selection"),
    "speed": ("device", "precision", "batch", "resolution", "attention"),
    "other": (),
}
"""What a claim of each family must say of its circumstances, if only that its source leaves it `unstated`."""

SCALES = {
    "": 1.0,
    "%": 0.01,
    "points": 0.01,
    "K": 1e3,
    "M": 1e6,
    "G": 1e9,
    "dB": 1.0,
    "bits": 1.0,
    "tokens": 1.0,
    "px": 1.0,
    "ms": 1.0,
    "s": 1e3,
    "images/s": 1.0,
    "ms/image": 1.0,
    "GB": 1e9,
    "GiB": 2.0**30,
}
"""Units in which numbers are printed, and what one of each is in the unit of records."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """Something that is measured and claimed."""

    name: str
    title: str
    family: Family
    values: tuple[str, ...]
    """Names of record values that measure it. Where a record has several, a source may have meant any of them."""
    better: Literal["higher", "lower", ""] = ""
    """What is better; nothing is where a number is only right or wrong."""
    port: float = 0.0
    """How far two correct implementations of the measure may be apart, in the unit of records (docs/verify.md)."""


QUANTITIES: dict[str, Quantity] = {
    each.name: each
    for each in (
        Quantity("parameters", "parameters", "structure", ("parameters",)),
        Quantity("state-entries", "tensors of the checkpoint", "structure", ("state_entries",)),
        Quantity("macs", "MACs", "structure", ("macs", "macs_total")),
        Quantity("encode-macs", "MACs of encoding", "structure", ("encode_macs",)),
        Quantity("decode-macs", "MACs of decoding", "structure", ("decode_macs",)),
        Quantity("image-size", "side of the images", "structure", ("image_size",)),
        Quantity("tokens", "tokens per image", "structure", ("tokens",)),
        Quantity("tokens-left", "tokens after the last block", "structure", ("tokens_left",)),
        Quantity("codebook-size", "entries of one codebook", "structure", ("codebook_size",)),
        Quantity("codebooks", "codebooks", "structure", ("codebooks",)),
        Quantity("bits-per-token", "bits of one token", "structure", ("bits_per_token",)),
        Quantity("bits-per-image", "bits of an image's code", "structure", ("bits_per_image",)),
        Quantity("bits-per-pixel", "bits per pixel of the code", "structure", ("bits_per_pixel",)),
        Quantity(
            "compression-ratio", "bits of the 8-bit image by bits of its code", "structure", ("compression_ratio",)
        ),
        Quantity(
            "latent-width",
            "channels of one token before it becomes a code",
            "structure",
            ("latent_width", "code_width"),
        ),
        Quantity("latent-size", "numbers in an image's latents", "structure", ("latent_size",)),
        Quantity("rfid", "rFID", "quality", ("rfid",), "lower", port=0.002),
        Quantity("gfid", "gFID", "quality", ("gfid",), "lower", port=0.002),
        Quantity("sfid", "sFID", "quality", ("sfid",), "lower", port=0.002),
        Quantity("inception-score", "Inception score", "quality", ("inception_score",), "higher", port=0.15),
        Quantity("precision", "precision of samples", "quality", ("precision",), "higher", port=0.002),
        Quantity("recall", "recall of samples", "quality", ("recall",), "higher", port=0.003),
        Quantity("psnr", "PSNR", "quality", ("psnr",), "higher"),
        Quantity("ssim", "SSIM", "quality", ("ssim",), "higher"),
        Quantity("lpips", "LPIPS", "quality", ("lpips",), "lower"),
        Quantity("codebook-use", "share of the codebook in use", "quality", ("codebook_use",), "higher"),
        Quantity("codebook-entropy", "entropy of the codes", "quality", ("codebook_entropy",), "higher"),
        Quantity("top1", "top-1 accuracy", "quality", ("top1",), "higher"),
        Quantity("top5", "top-5 accuracy", "quality", ("top5",), "higher"),
        Quantity("images-per-second", "images per second", "speed", ("images_per_second",), "higher"),
        Quantity("encode-rate", "images encoded per second", "speed", ("encode_images_per_second",), "higher"),
        Quantity("decode-rate", "images decoded per second", "speed", ("decode_images_per_second",), "higher"),
        Quantity("latency", "latency at batch 1", "speed", ("latency_p50_ms",), "lower"),
        Quantity("memory", "memory of one call", "speed", ("call_memory_bytes",), "lower"),
        Quantity("other", "not measured here", "other", ()),
    )
}


def decimals(printed: str) -> int:
    """How many digits stand after the point of a printed number."""
    return len(printed.partition(".")[2])


def half_digit(printed: str) -> float:
    """Half of the last digit that was printed."""
    return 0.5 * 10.0 ** -decimals(printed)


def number(printed: str) -> float:
    """The printed number.

    Raises:
        ValueError: it is none, or not finite.
    """
    found = float(printed)
    if not math.isfinite(found) or printed != printed.strip() or "e" in printed.lower() or "_" in printed:
        raise ValueError(f"'{printed}' is not a number as papers print it")
    return found
