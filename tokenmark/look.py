"""One picture through a tokenizer: its codes, and what they decode to, at several lengths where the method allows."""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from tokenmark.contracts import Tokenizer, Tokens
from tokenmark.data.crops import CROPS
from tokenmark.data.decode import UnreadableError, decode
from tokenmark.errors import DataError
from tokenmark.files import write_atomic, writing
from tokenmark.measures.pixels import psnr, ssim

CROP = "adm"
CAPTION = 18
"""Pixels of height for the words under a picture."""
GAP = 8
SHOWN = 192
"""Pictures smaller than this are enlarged to it by a whole factor, so that one can see them."""
GROUND, INK = (255, 255, 255), (40, 40, 40)


@dataclass(frozen=True, slots=True)
class Seen:
    """What one length of code gives of a picture."""

    tokens: Tokens
    image: Tensor
    """`(3, S, S)` in [0, 1], on the processor."""
    psnr: float
    ssim: float

    @property
    def length(self) -> int:
        """Tokens of the picture."""
        return int(self.tokens.lengths[0])

    @property
    def bits(self) -> float:
        """Bits of its code."""
        return float(self.tokens.bits[0])

    @property
    def row(self) -> dict[str, str]:
        """The numbers, as a table's row."""
        return {
            "tokens": f"{self.length:,}",
            "bits": f"{self.bits:,.0f}",
            "bits/px": f"{self.bits / self.image[0].numel():.3f}",
            "PSNR dB": f"{self.psnr:.2f}",
            "SSIM": f"{self.ssim:.3f}",
        }


def read(path: Path, side: int) -> Tensor:
    """A picture file as `(1, 3, side, side)` in [0, 1]: its centre, shrunk by guided diffusion's rule.

    Raises:
        DataError: it is not there, or no whole JPEG or PNG.
    """
    try:
        picture, _ = decode(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; give the path of a JPEG or PNG file") from error
    except UnreadableError as error:
        raise DataError(f"{path} is no picture that can be read: {error}; give a whole JPEG or PNG file") from error
    pixels = CROPS[CROP].apply(picture, side)
    return torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0).float() / 255.0


def lengths_of(tokenizer: Tokenizer, asked: Sequence[int]) -> list[int | None]:
    """The lengths to show: those asked for, else some from short to whole where the method has shorter codes."""
    info = tokenizer.info
    if asked:
        return list(asked)
    if not info.variable_length or info.max_tokens is None:
        return [None]
    powers = [2**exponent for exponent in range(20) if 2**exponent < info.max_tokens]
    return [*powers[-4:], info.max_tokens]


def through(
    tokenizer: Tokenizer, image: Tensor, lengths: Sequence[int | None], seed: int, text: Tensor | None = None
) -> list[Seen]:
    """The picture `(1, 3, S, S)`, encoded and decoded at each length; noise, where any is drawn, by the seed.

    Raises:
        MethodError: the method cannot give such a length, or needs text.
    """
    info = tokenizer.info
    found = []
    with torch.inference_mode():
        for length in lengths:
            noise = torch.Generator().manual_seed(seed)
            tokens = tokenizer.encode(image, length, noise if info.stochastic else None)
            more: dict[str, Any] = {"generator": noise} if info.draws_to_decode else {}
            if info.text is not None:
                more["text"] = text
            decoded = tokenizer.decode(tokens, **more)
            numbers = (float(measure(decoded, image)[0]) for measure in (psnr, ssim))
            found.append(Seen(tokens, decoded[0].float().cpu(), *numbers))
    return found


def sheet(original: Tensor, seen: Sequence[Seen]) -> Image.Image:
    """The picture and what each length gives of it, side by side, with words under them."""
    captions = ["original", *(_caption(each) for each in seen)]
    pictures = [_enlarged(image) for image in (original[0].cpu(), *(each.image for each in seen))]
    width, height = pictures[0].size
    columns = max(width + GAP, *(9 * len(caption) for caption in captions))
    canvas = Image.new("RGB", (GAP + columns * len(pictures), height + CAPTION + 2 * GAP), GROUND)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
    for place, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        left = GAP + place * columns
        canvas.paste(picture, (left, GAP))
        draw.text((left, GAP + height + 3), caption, fill=INK, font=font)
    return canvas


def _caption(each: Seen) -> str:
    unit = "token" if each.length == 1 else "tokens"
    return f"{each.length:,} {unit}, {each.psnr:.1f} dB"


def _enlarged(image: Tensor) -> Image.Image:
    pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    factor = max(1, -(-SHOWN // pixels.shape[0]))
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def write(folder: Path, stem: str, facts: dict[str, Any], original: Tensor, seen: Sequence[Seen]) -> tuple[Path, Path]:
    """Write the codes (JSON) and the sheet (PNG); gives both paths.

    Raises:
        StorageError: they cannot be written; what was there stays.
    """
    codes, picture = folder / f"{stem}.json", folder / f"{stem}.png"
    out = io.BytesIO()
    sheet(original, seen).save(out, format="PNG", optimize=True)
    held = {**facts, "codes": [_content(each) for each in seen]}
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(codes, (json.dumps(held, indent=1) + "\n").encode())
        write_atomic(picture, out.getvalue())
    return codes, picture


def _content(each: Seen) -> dict[str, Any]:
    facts: dict[str, Any] = {"tokens": each.length, "bits": each.bits, "psnr": each.psnr, "ssim": each.ssim}
    if each.tokens.codes is not None:
        return facts | {"codes": each.tokens.codes[0, : each.length].tolist()}
    assert each.tokens.latents is not None  # noqa: S101  one of the two is always there
    return facts | {"latents": each.tokens.latents[0, : each.length].float().tolist()}
