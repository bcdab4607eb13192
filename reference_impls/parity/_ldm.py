"""The parts of VQGAN-like networks whose outputs vectors record."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from reference_impls.layers.grid_vq import GridVQ, as_grid
from reference_impls.layers.ldm_conv import LdmDecoder, LdmEncoder
from reference_impls.layers.quantizers import Quantized
from reference_impls.parity._taps import tapped

__all__ = ["grid_outputs", "ldm_stages", "of_whole_size"]


def of_whole_size(arguments: Mapping[str, Any], levels: int) -> dict[str, Any]:
    """The arguments with an image size that `levels` levels divide: networks take any, a nominal one may be odd."""
    factor = 2 ** (levels - 1)
    return {**arguments, "image_size": -(-arguments["image_size"] // factor) * factor}


def ldm_stages(encoder: LdmEncoder, decoder: LdmDecoder) -> dict[str, nn.Module]:
    """Under taming's names, and levels under LlamaGen's too."""
    found: dict[str, nn.Module] = {
        "encoder_conv_in": encoder.conv_in,
        "encoder_mid": encoder.mid,
        "encoder_output": encoder,
        "decoder_conv_in": decoder.conv_in,
        "decoder_mid": decoder.mid,
    }
    for index, level in enumerate(encoder.down):
        found |= {f"encoder_down_{index}": level, f"encoder_level_{index}": level}
    for index, level in enumerate(decoder.up):
        found |= {f"decoder_up_{index}": level, f"decoder_level_{index}": level}
    return found


def grid_outputs(
    module: GridVQ, signed: Tensor, quantize: Callable[[Tensor], Quantized] | None = None
) -> dict[str, Tensor]:
    """Every level, the codes and both ways to the image, for images in [-1, 1] of any size.

    `quantize` stands for the module's own on rows `(B, N, D)`, where that needs noise.
    """
    stages = ldm_stages(module.encoder, module.decoder)  # type: ignore[arg-type]
    if module.post_quant_conv is not None:
        stages["decoder_input"] = module.post_quant_conv
    with tapped(stages) as seen:
        encoded = module.encode_grid(signed)
        height, width = encoded.shape[2:]
        quantized = (quantize or module.quantize)(encoded.flatten(2).transpose(1, 2))
        rows = as_grid(quantized.quantized, height, width)
        reconstruction = module.decode_grid(rows)
    looked_up = as_grid(module.quantize.lookup(quantized.codes), height, width)
    return seen | {
        "encoded": encoded,
        "tokens": quantized.codes.flatten(),
        "quantized": rows,
        "reconstruction": reconstruction,
        "decoded_tokens": module.decode_grid(looked_up),
    }
