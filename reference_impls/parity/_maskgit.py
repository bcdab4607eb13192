"""The parts of MaskGIT's convolutional network, and of its heirs', whose outputs vectors record."""

from typing import Any

from torch import nn

__all__ = ["conv_stages"]


def conv_stages(encoder: Any, decoder: Any) -> dict[str, nn.Module]:
    """Every level of a `ConvEncoder` and a `ConvDecoder`, under the vectors' names."""
    return {
        "encoder_conv_in": encoder.conv_in,
        **{f"encoder_down_{index}": level for index, level in enumerate(encoder.down)},
        "encoder_mid": encoder.mid,
        "encoded": encoder,
        "decoder_conv_in": decoder.conv_in,
        "decoder_mid": decoder.mid,
        **{f"decoder_up_{index}": level for index, level in enumerate(decoder.up)},
    }
