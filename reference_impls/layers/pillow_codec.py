"""Image files as token sequences: what a plain codec gives at the same number of bytes."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from reference_impls.layers.token_checks import check_codes, check_images
from tokenmark.contracts import MethodError, TokenizerInfo, Tokens, Variant

__all__ = ["PillowCodec", "codec_variants"]


class PillowCodec(nn.Module):
    """A file format of Pillow as a tokenizer: a token is a byte of the file, headers included.

    Codes are `(B, longest file)`, padded with zeros; `lengths` says how many bytes each file has. Asked for so many
    tokens, every image gets the best quality up to its own at which its file is not longer.

    Args:
        format_name: Pillow's name of the format.
        image_size: Side of the images, in pixels.
        options: What Pillow's `save` takes, quality among it.
    """

    def __init__(self, format_name: str, image_size: int, options: Mapping[str, Any]) -> None:
        super().__init__()
        if not isinstance(image_size, int) or image_size < 1:
            raise MethodError(f"image_size must be a whole number of pixels, got {image_size}")
        quality = options["quality"]
        if not isinstance(quality, int) or not 0 <= quality <= 100:
            raise MethodError(f"quality must be a whole number from 0 to 100, got {quality}")
        self.format_name, self.image_size = format_name, image_size
        self.quality, self.options = quality, dict(options)

    @property
    def info(self) -> TokenizerInfo:
        """Bytes, as many as a file needs."""
        return TokenizerInfo(
            image_size=self.image_size,
            max_tokens=None,
            codebook_sizes=(256,),
            bits_per_token=8.0,
            variable_length=True,
            stochastic=False,
            parameters=0,
        )

    @torch.no_grad()
    def encode(self, images: Tensor, tokens: int | None = None, generator: torch.Generator | None = None) -> Tokens:  # noqa: ARG002
        """Files of images `(B, 3, S, S)` in [0, 1], rounded to 8 bits, of at most `tokens` bytes each.

        Raises MethodError for other images, and for so few bytes that not even the worst quality has room in them.
        """
        check_images(images, self.image_size)
        pixels = (images.detach().cpu().double() * 255.0).round().clamp(0.0, 255.0).to(torch.uint8)
        arrays = pixels.permute(0, 2, 3, 1).numpy()
        files = [
            self._write(image, self.quality) if tokens is None else self._within(image, tokens) for image in arrays
        ]
        codes = torch.zeros(len(files), max(map(len, files), default=0), dtype=torch.int64)
        for row, file in zip(codes, files, strict=True):
            row[: len(file)] = torch.from_numpy(np.frombuffer(file, np.uint8).astype(np.int64))
        lengths = torch.tensor([len(file) for file in files], dtype=torch.int64)
        tokens_out = Tokens(lengths=lengths, bits=lengths.double() * 8.0, codes=codes)
        return _on(tokens_out, images.device)

    @torch.no_grad()
    def decode(self, tokens: Tokens, generator: torch.Generator | None = None, text: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Images `(B, 3, S, S)` in [0, 1]; MethodError for bytes that are not such a file of such an image."""
        codes = check_codes(tokens, 256, None)
        lengths = tokens.lengths.tolist()
        if len(lengths) != len(codes) or any(not 0 < length <= codes.shape[1] for length in lengths):
            raise MethodError(f"lengths must be 1 to {codes.shape[1]}, one for each of {len(codes)} files")
        rows = codes.cpu().to(torch.uint8).numpy()
        pixels = [self._read(row[:length].tobytes()) for row, length in zip(rows, lengths, strict=True)]
        if not pixels:
            return torch.zeros(0, 3, self.image_size, self.image_size, device=codes.device)
        images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()
        return images.to(codes.device).float() / 255.0

    def _within(self, pixels: np.ndarray, most: int) -> bytes:
        """The file of the best quality that has at most so many bytes, by bisection: better files are longer."""
        worst, best = self._write(pixels, 0), self._write(pixels, self.quality)
        if len(best) <= most:
            return best
        if len(worst) > most:
            raise MethodError(
                f"tokens={most} cannot be had: at its worst quality {self.format_name} needs {len(worst)} bytes"
            )
        low, high = 0, self.quality
        while high - low > 1:
            middle = (low + high) // 2
            file = self._write(pixels, middle)
            if len(file) <= most:
                low, worst = middle, file
            else:
                high = middle
        return worst

    def _write(self, pixels: np.ndarray, quality: int) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, self.format_name, **{**self.options, "quality": quality})
        return buffer.getvalue()

    def _read(self, file: bytes) -> np.ndarray:
        side = self.image_size
        try:
            with Image.open(io.BytesIO(file), formats=[self.format_name]) as image:
                # The header's size is checked before a pixel is decoded: a few bytes can claim gigapixels.
                if image.size != (side, side):
                    raise MethodError(f"the file holds a {image.size[0]}x{image.size[1]} image, not {side}x{side}")
                return np.asarray(image.convert("RGB"))
        # Pillow's readers raise all of these on damaged files, and a warning-turned-error for huge ones.
        except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
            raise MethodError(f"not a readable {self.format_name} file: {error}") from error


def _on(tokens: Tokens, device: torch.device) -> Tokens:
    codes = None if tokens.codes is None else tokens.codes.to(device)
    return Tokens(lengths=tokens.lengths.to(device), bits=tokens.bits.to(device), codes=codes)


def codec_variants(qualities: Sequence[int]) -> dict[str, Variant]:
    """`q50` for images of 32 px, `q50-256` for images of 256 px, and so on."""
    sizes = {"": 32, "-256": 256, "-512": 512}
    return {
        f"q{quality}{ending}": Variant(config={"quality": quality, "image_size": side})
        for ending, side in sizes.items()
        for quality in qualities
    }
