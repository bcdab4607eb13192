"""A convolutional tokenizer with one code per cell of a grid: encoder, quantizer, decoder."""

from torch import Tensor, nn

from reference_impls.layers.precision import at_least_float32
from reference_impls.layers.quantizers import Quantized, Quantizer, TrainOutput
from reference_impls.layers.tokenizer import CodeTokenizer, from_signed, to_signed
from tokenmark.contracts import MethodError

__all__ = ["GridVQ", "as_grid", "as_rows"]


def as_rows(grid: Tensor) -> Tensor:
    """`(B, C, h, w)` to `(B, h*w, C)`, row by row."""
    return grid.flatten(2).transpose(1, 2)


def as_grid(rows: Tensor, height: int, width: int | None = None) -> Tensor:
    """`(B, h*w, C)` to `(B, C, h, w)`; a square if no width is given."""
    return rows.transpose(1, 2).reshape(len(rows), rows.shape[2], height, width or height)


class GridVQ(CodeTokenizer):
    """What VQGAN and its heirs share (arXiv 2012.09841, section 3.1); pixels are in [-1, 1] inside, if `signed`.

    Args:
        image_size: Side of the images, in pixels; a multiple of `factor`.
        factor: How many pixels of a side become one token.
        encoder: Images `(B, 3, H, W)` to `(B, z, h, w)`.
        decoder: `(B, z, h, w)` to images.
        quantize: The bottleneck, on rows `(B, N, D)`.
        quant_conv: From the encoder's channels to the codebook's, if they differ.
        post_quant_conv: And back.
    """

    signed: bool = True
    """Whether the networks compute in [-1, 1]; else in [0, 1]."""

    def __init__(
        self,
        *,
        image_size: int,
        factor: int,
        encoder: nn.Module,
        decoder: nn.Module,
        quantize: Quantizer,
        quant_conv: nn.Conv2d | None = None,
        post_quant_conv: nn.Conv2d | None = None,
    ) -> None:
        super().__init__()
        if image_size % factor:
            raise MethodError(f"image_size must be a multiple of {factor}, got {image_size}")
        self.image_size, self.grid = image_size, image_size // factor
        self.max_tokens = self.grid**2
        self.encoder, self.decoder, self.quantize = encoder, decoder, quantize
        self.quant_conv, self.post_quant_conv = quant_conv, post_quant_conv

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """The quantizer's."""
        return self.quantize.codebook_sizes

    def encode_grid(self, pixels: Tensor) -> Tensor:
        """Differentiable: latents `(B, D, h, w)` of `pixels` `(B, 3, H, W)` in the networks' range, not quantised."""
        latents: Tensor = self.encoder(pixels)
        return latents if self.quant_conv is None else self.quant_conv(latents)

    def decode_grid(self, latents: Tensor) -> Tensor:
        """Differentiable: pixels in the networks' range, not clamped, of quantised latents `(B, D, h, w)`."""
        latents = latents.to(self.number_type)
        if self.post_quant_conv is not None:
            latents = self.post_quant_conv(latents)
        return at_least_float32(self.decoder(latents))

    def quantize_images(self, images: Tensor) -> Quantized:
        """Differentiable: latents `(B, N, D)` of images in [0, 1], quantised."""
        images = images.to(self.number_type)
        pixels = to_signed(images) if self.signed else images
        quantized: Quantized = self.quantize(as_rows(self.encode_grid(pixels)))
        return quantized

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Differentiable: images in [0, 1], not clamped, of quantised latents `(B, N, D)`."""
        pixels = self.decode_grid(as_grid(latents, self.grid))
        return from_signed(pixels) if self.signed else pixels

    def forward_train(self, images: Tensor) -> TrainOutput:
        """One differentiable pass over images `(B, 3, S, S)`, with the bottleneck's own losses (VQGAN, eq. 4)."""
        quantized = self.quantize_images(images)
        return TrainOutput(self.decode_latents(quantized.quantized), quantized.loss, quantized.codes)

    def encode_codes(self, images: Tensor) -> Tensor:
        """Codes `(B, N)` in row-major order."""
        return self.quantize_images(images).codes

    def decode_codes(self, codes: Tensor) -> Tensor:
        """Images of codes `(B, N)`."""
        return self.decode_latents(self.quantize.lookup(codes))
