"""What every tokenizer asks of its callers, said in one line when it is not so, and how it packs codes."""

import math

import torch
from torch import Tensor

from tokenmark.contracts import MethodError, Tokens

__all__ = ["check_codes", "check_images", "check_latents", "check_length", "pack_codes"]


def check_images(images: Tensor, image_size: int) -> None:
    """Raise MethodError unless `images` are floats `(B, 3, image_size, image_size)`."""
    if not images.is_floating_point():
        raise MethodError(f"images must be floating point in [0, 1], got {images.dtype}")
    if images.dim() != 4 or tuple(images.shape[1:]) != (3, image_size, image_size):
        raise MethodError(f"images must be (B, 3, {image_size}, {image_size}), got {tuple(images.shape)}")


def check_length(asked: int | None, longest: int | None, *, variable: bool) -> None:
    """Raise MethodError unless `asked` tokens can be given: 1 to `longest`, or just `longest` if not `variable`."""
    if asked is None or (asked == longest and longest is not None):
        return
    if not variable:
        always = "a length of its own per image" if longest is None else f"{longest} tokens"
        raise MethodError(f"this tokenizer always gives {always}: tokens={asked} cannot be asked of it")
    if longest is not None and not 1 <= asked <= longest:
        raise MethodError(f"tokens must be 1 to {longest}, got {asked}")


def check_codes(tokens: Tokens, codebook_size: int, longest: int | None, *, variable: bool = False) -> Tensor:
    """The codes `(B, N)` of `tokens`; MethodError unless they are int64, of a length that decodes, and in range."""
    codes = tokens.codes
    if codes is None:
        raise MethodError("this tokenizer decodes integer codes, got continuous latents")
    if codes.dtype != torch.int64:
        raise MethodError(f"codes must be int64, got {codes.dtype}")
    if codes.dim() != 2:
        raise MethodError(f"codes must be (B, N), got {tuple(codes.shape)}")
    if longest is not None:
        _check_count(codes.shape[1], longest, variable=variable)
    if codes.numel():
        low, high = (int(value) for value in torch.stack(torch.aminmax(codes)).tolist())
        if low < 0 or high >= codebook_size:
            raise MethodError(f"codes must be 0 to {codebook_size - 1}, got {low} to {high}")
    return codes


def check_latents(tokens: Tokens, count: int, channels: int) -> Tensor:
    """The latents of `tokens`; MethodError unless they are floats `(B, count, channels)`."""
    latents = tokens.latents
    if latents is None:
        raise MethodError("this tokenizer decodes continuous latents, got integer codes")
    if not latents.is_floating_point():
        raise MethodError(f"latents must be floating point, got {latents.dtype}")
    if latents.dim() != 3 or tuple(latents.shape[1:]) != (count, channels):
        raise MethodError(f"latents must be (B, {count}, {channels}), got {tuple(latents.shape)}")
    return latents


def pack_codes(codes: Tensor, codebook_size: int) -> Tokens:
    """Tokens for codes `(B, N)` of one codebook: N tokens of log2(codebook_size) bits for each image."""
    lengths = torch.full((codes.shape[0],), codes.shape[1], dtype=torch.int64, device=codes.device)
    return Tokens(lengths=lengths, bits=lengths.double() * math.log2(codebook_size), codes=codes)


def _check_count(count: int, longest: int, *, variable: bool) -> None:
    if variable and not 1 <= count <= longest:
        raise MethodError(f"codes must hold 1 to {longest} tokens per image, got {count}")
    if not variable and count != longest:
        raise MethodError(f"codes must hold {longest} tokens per image, got {count}")
