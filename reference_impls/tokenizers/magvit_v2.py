"""MAGVIT-v2: a code without a codebook, and a causal network that has one vocabulary for images and clips.

No release: built from the paper. (Open-MAGVIT2, which others released, differs from it, and is a method of its own.)
What the paper leaves open, and what was taken:

- the channels of the image tokenizers: multipliers 1, 1, 2, 2, 4 at 256 pixels, as Open-MAGVIT2 has them, one more 4 at
  512, and the video tokenizer's 1, 2, 2, 4 at 128; four residual blocks per level, and four in the middle;
- padding: zeros, in time before the first frame only;
- group norms: over each frame alone, for statistics over time would not be causal; biases everywhere;
- the adaptive norm: scale and shift by a linear map of the latents' mean over each frame;
- time is halved in the last two of the encoder's three halvings;
- the entropy loss: temperature 0.01, over all bits at once;
- images are in [-1, 1] inside.

Through the contract a tokenizer made for video takes stills: clips of one frame. `encode_clips` and `decode_clips` take
any clip of it.
"""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from reference_impls.layers.binary import BinaryQuantizer, EntropyLoss
from reference_impls.layers.causal_conv3d import CausalDecoder, CausalEncoder, CausalSize
from reference_impls.layers.precision import at_least_float32
from reference_impls.layers.quantizers import Quantized
from reference_impls.layers.tokenizer import CodeTokenizer, from_signed, to_signed
from tokenmark.contracts import MethodError, Paper, TokenizerMethod, Variant

__all__ = ["METHOD", "MagvitV2", "joined_codes", "split_codes"]


def split_codes(codes: Tensor, bits: int, parts: int = 2) -> Tensor:
    """Codes `(...)` of `bits` bits as `parts` sub-tokens `(..., parts)` of a small vocabulary, for a transformer.

    The first sub-token holds the lowest bits (the paper has 2^18 codes as two of 2^9). Raises MethodError where the
    bits cannot be shared evenly.
    """
    if bits % parts:
        raise MethodError(f"{bits} bits cannot be shared by {parts} sub-tokens")
    width = bits // parts
    shifts = torch.arange(parts, device=codes.device) * width
    return torch.bitwise_and(codes.unsqueeze(-1) >> shifts, 2**width - 1)


def joined_codes(split: Tensor, bits: int) -> Tensor:
    """The inverse of `split_codes`: `(..., parts)` to `(...)`."""
    parts = split.shape[-1]
    shifts = torch.arange(parts, device=split.device) * (bits // parts)
    return (split << shifts).sum(-1)


class MagvitV2(CodeTokenizer):
    """MAGVIT-v2's tokenizer (arXiv 2310.05737).

    Args:
        image_size: Side of the images, in pixels.
        ch: Width that `ch_mult` multiplies; a multiple of 32.
        ch_mult: One factor per level, finest first.
        num_res_blocks: Residual blocks per level, and in the middle.
        bits: Bits of a code: there are 2 ** bits codes.
        time_kernel: Frames that a convolution sees; 1 for images, 3 for video.
        time_levels: Levels of the encoder, 0 the finest, behind which time is halved as well.
    """

    def __init__(
        self,
        *,
        image_size: int,
        ch: int = 128,
        ch_mult: Sequence[int],
        num_res_blocks: int = 4,
        bits: int = 18,
        time_kernel: int = 1,
        time_levels: Collection[int] = (),
    ) -> None:
        super().__init__()
        size = CausalSize(
            ch=ch,
            ch_mult=ch_mult,
            num_res_blocks=num_res_blocks,
            z_channels=bits,
            time_kernel=time_kernel,
            time_levels=time_levels,
        )
        if image_size % size.factor:
            raise MethodError(f"image_size must be a multiple of {size.factor}, got {image_size}")
        if time_levels and (time_kernel < 2 or not set(time_levels) <= set(range(len(ch_mult) - 1))):
            raise MethodError(f"time cannot be halved behind levels {list(time_levels)} by kernels of {time_kernel}")
        self.image_size, self.grid = image_size, image_size // size.factor
        self.max_tokens, self.time_factor = self.grid**2, size.time_factor
        self.encoder, self.decoder = CausalEncoder(size), CausalDecoder(size)
        self.quantize = BinaryQuantizer(bits, entropy=EntropyLoss(weight=0.1))

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """One codebook, which is nowhere written out."""
        return self.quantize.codebook_sizes

    def quantize_clips(self, clips: Tensor) -> Quantized:
        """Differentiable: clips `(B, 3, T, S, S)` in [0, 1] quantised, codes `(B, t, h, w)`.

        Raises MethodError unless there are 1 + `time_factor` * (t - 1) frames.
        """
        if (clips.shape[2] - 1) % self.time_factor:
            raise MethodError(f"clips must have 1 + {self.time_factor} n frames, got {clips.shape[2]}")
        quantized: Quantized = self.quantize(self.encoder(to_signed(clips.to(self.number_type))).movedim(1, -1))
        return quantized

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Differentiable: clips in [0, 1], not clamped, of quantised latents `(B, t, h, w, bits)`."""
        clips = self.decoder(latents.movedim(-1, 1).to(self.number_type))
        return from_signed(at_least_float32(clips))

    def encode_clips(self, clips: Tensor) -> Tensor:
        """Codes `(B, t, h, w)`; a frame's codes know nothing of the frames behind it."""
        return self.quantize_clips(clips).codes

    def decode_clips(self, codes: Tensor) -> Tensor:
        """Clips `(B, 3, T, S, S)` in [0, 1], not clamped, of codes `(B, t, h, w)`."""
        return self.decode_latents(self.quantize.lookup(codes))

    def encode_codes(self, images: Tensor) -> Tensor:
        """Codes `(B, N)` in row-major order, of clips of one frame."""
        return self.encode_clips(images.unsqueeze(2)).flatten(1)

    def decode_codes(self, codes: Tensor) -> Tensor:
        """Images of codes `(B, N)`."""
        return self.decode_clips(codes.reshape(-1, 1, self.grid, self.grid)).squeeze(2)

    @torch.no_grad()
    def inflate(self, image: "MagvitV2") -> None:
        """Start a video tokenizer from an image tokenizer's weights, which then code stills alike.

        A two-dimensional kernel becomes the last frame of one in three dimensions; the others are zero. Raises
        MethodError where the two differ in more than time.
        """
        given, own = image.state_dict(), self.state_dict()
        if given.keys() != own.keys() or any(not _inflates(given[name], own[name]) for name in own):
            raise MethodError("an image tokenizer can be inflated only to the same sizes")
        for name, weight in own.items():
            source = given[name]
            repeats = len(weight) // len(source)  # doubled time has twice the channels: once per frame
            if weight.dim() == 5:
                weight.zero_()
                weight[:, :, -1] = source[:, :, -1].repeat(repeats, 1, 1, 1)
            else:
                weight.copy_(source.repeat(repeats, *[1] * (source.dim() - 1)))


def _inflates(source: Tensor, weight: Tensor) -> bool:
    """Whether a weight differs from its source only in a kernel's frames and in repeated outputs."""
    rest = [weight.shape[1:2] + weight.shape[3:], source.shape[1:2] + source.shape[3:]]
    return weight.dim() == source.dim() and rest[0] == rest[1] and len(weight) % len(source) == 0


NO_RELEASE = "no release: built from the paper; the module's docstring says what it leaves open"

METHOD = TokenizerMethod(
    id="magvit-v2",
    title="MAGVIT-v2",
    idea="Signs of channels are the code: 2^18 codes without a codebook, for images and, causally, for clips alike",
    paper=Paper(
        title="Language Model Beats Diffusion -- Tokenizer is Key to Visual Generation",
        authors=(
            "Lijun Yu, José Lezama, Nitesh B. Gundavarapu, Luca Versari, Kihyuk Sohn, David Minnen, Yong Cheng,"
            " Vighnesh Birodkar, Agrim Gupta, Xiuye Gu, Alexander G. Hauptmann, Boqing Gong, Ming-Hsuan Yang,"
            " Irfan Essa, David A. Ross, Lu Jiang"
        ),
        year=2024,
        url="https://arxiv.org/abs/2310.05737",
    ),
    build=MagvitV2,
    variants={
        "image-128": Variant(config={"image_size": 128, "ch_mult": (1, 2, 2, 4)}, note=NO_RELEASE),
        "image-256": Variant(config={"image_size": 256, "ch_mult": (1, 1, 2, 2, 4)}, note=NO_RELEASE),
        "image-512": Variant(config={"image_size": 512, "ch_mult": (1, 1, 2, 2, 4, 4)}, note=NO_RELEASE),
        "video-128": Variant(
            config={"image_size": 128, "ch_mult": (1, 2, 2, 4), "time_kernel": 3, "time_levels": (1, 2)},
            note=f"{NO_RELEASE}; made for clips of 17 frames",
        ),
    },
)
