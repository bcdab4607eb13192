"""What every tokenizer asks of its callers, said in one line when it is not so, and how it packs codes."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tokenmark.contracts import MethodError, Tokens

__all__ = [
    "LATENT_BITS",
    "bits_of",
    "check_codes",
    "check_images",
    "check_latents",
    "check_length",
    "check_text",
    "need_noise",
    "pack_codes",
    "pack_latents",
]

SLACK = 1e-3
"""How far beyond [0, 1] pixels may lie: rounding of half precision, and no more."""
LATENT_BITS = 32
"""Bits of one continuous latent channel: they are kept as float32."""


def check_images(images: Tensor, image_size: int) -> None:
    """Raise MethodError unless `images` are floats `(B, 3, image_size, image_size)` in [0, 1]."""
    if not images.is_floating_point():
        raise MethodError(f"images must be floating point in [0, 1], got {images.dtype}")
    if images.dim() != 4 or tuple(images.shape[1:]) != (3, image_size, image_size):
        raise MethodError(f"images must be (B, 3, {image_size}, {image_size}), got {tuple(images.shape)}")
    if _readable(images):
        low, high = torch.stack(torch.aminmax(images.detach())).tolist()
        if not (low >= -SLACK and high <= 1.0 + SLACK):
            raise MethodError(f"images must be in [0, 1], got values from {low:.3g} to {high:.3g}")


def check_length(asked: int | None, longest: int | None, *, variable: bool) -> None:
    """Raise MethodError unless `asked` tokens can be given: 1 to `longest`, or just `longest` if not `variable`."""
    if asked is None or (asked == longest and longest is not None):
        return
    if not variable:
        always = "a length of its own per image" if longest is None else f"{longest} tokens"
        raise MethodError(f"this tokenizer always gives {always}: tokens={asked} cannot be asked of it")
    if longest is not None and not 1 <= asked <= longest:
        raise MethodError(f"tokens must be 1 to {longest}, got {asked}")


def check_codes(
    tokens: Tokens, codebook_sizes: int | Sequence[int], longest: int | None, *, variable: bool = False
) -> Tensor:
    """The codes of `tokens`: `(B, N)`, or `(B, N, K)` where there are K codebooks.

    Raises MethodError unless they are int64, of a length that decodes, and in the range of their codebook.
    """
    codes = tokens.codes
    if codes is None:
        raise MethodError("this tokenizer decodes integer codes, got continuous latents")
    if codes.dtype != torch.int64:
        raise MethodError(f"codes must be int64, got {codes.dtype}")
    sizes = (codebook_sizes,) if isinstance(codebook_sizes, int) else tuple(codebook_sizes)
    shape = "(B, N)" if len(sizes) == 1 else f"(B, N, {len(sizes)})"
    if codes.dim() != (2 if len(sizes) == 1 else 3) or (codes.dim() == 3 and codes.shape[2] != len(sizes)):
        raise MethodError(f"codes must be {shape}, got {tuple(codes.shape)}")
    if longest is not None:
        _check_count(codes.shape[1], longest, variable=variable)
    if _readable(codes):
        low, high = (values.reshape(-1, len(sizes)).amin(0) for values in (codes, -codes))
        for index, (least, most, size) in enumerate(zip(low.tolist(), (-high).tolist(), sizes, strict=True)):
            if least < 0 or most >= size:
                which = "codes" if len(sizes) == 1 else f"codes of codebook {index}"
                raise MethodError(f"{which} must be 0 to {size - 1}, got {least} to {most}")
    return codes


def check_latents(tokens: Tokens, count: int, channels: int, *, variable: bool = False) -> Tensor:
    """The latents of `tokens`; MethodError unless they are floats `(B, count, channels)`, or fewer if `variable`."""
    latents = tokens.latents
    if latents is None:
        raise MethodError("this tokenizer decodes continuous latents, got integer codes")
    if not latents.is_floating_point():
        raise MethodError(f"latents must be floating point, got {latents.dtype}")
    longest = f"1 to {count}" if variable else str(count)
    fits = latents.dim() == 3 and latents.shape[2] == channels
    if not fits or not (1 if variable else count) <= latents.shape[1] <= count:
        raise MethodError(f"latents must be (B, {longest}, {channels}), got {tuple(latents.shape)}")
    return latents


def check_text(text: Tensor | None, batch: int, tokens: int, channels: int) -> Tensor:
    """The text features; MethodError unless they are floats `(batch, tokens, channels)`."""
    shape = f"({batch}, {tokens}, {channels})"
    if text is None:
        raise MethodError(f"this decoder is told in text what the image shows: give decode() text features {shape}")
    if not text.is_floating_point() or tuple(text.shape) != (batch, tokens, channels):
        raise MethodError(f"text features must be floats {shape}, got {text.dtype} {tuple(text.shape)}")
    return text


def need_noise(generator: torch.Generator | None, what: str) -> torch.Generator:
    """The `generator`; MethodError where there is none, for `what` ("encode", "decode") draws noise."""
    if generator is None:
        raise MethodError(f"{what}() draws noise here: give it a torch.Generator, so that it can be repeated")
    return generator


def bits_of(codebook_sizes: int | Sequence[int]) -> float:
    """Bits of one token: the sum of the logarithms of its codebooks' sizes."""
    sizes = (codebook_sizes,) if isinstance(codebook_sizes, int) else codebook_sizes
    return float(sum(math.log2(size) for size in sizes))


def pack_codes(codes: Tensor, codebook_sizes: int | Sequence[int], lengths: Tensor | None = None) -> Tokens:
    """Tokens for codes `(B, N)` or `(B, N, K)`; `lengths` (int64, `(B,)`) where images differ in theirs."""
    if lengths is None:
        lengths = torch.full((codes.shape[0],), codes.shape[1], dtype=torch.int64, device=codes.device)
    return Tokens(lengths=lengths, bits=lengths.double() * bits_of(codebook_sizes), codes=codes)


def pack_latents(latents: Tensor, lengths: Tensor | None = None) -> Tokens:
    """Tokens for latents `(B, N, C)`, which are kept as float32: 32 bits for each channel."""
    if lengths is None:
        lengths = torch.full((latents.shape[0],), latents.shape[1], dtype=torch.int64, device=latents.device)
    return Tokens(lengths=lengths, bits=lengths.double() * LATENT_BITS * latents.shape[2], latents=latents)


def _readable(tensor: Tensor) -> bool:
    """Whether values may be looked at: not while a graph is compiled, which that would break, nor of shapes alone."""
    return bool(tensor.numel()) and not torch.compiler.is_compiling() and tensor.untyped_storage().device.type != "meta"


def _check_count(count: int, longest: int, *, variable: bool) -> None:
    if variable and not 1 <= count <= longest:
        raise MethodError(f"codes must hold 1 to {longest} tokens per image, got {count}")
    if not variable and count != longest:
        raise MethodError(f"codes must hold {longest} tokens per image, got {count}")
