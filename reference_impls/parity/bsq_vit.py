"""BSQ-ViT beside zhaoyue-zephyrus/bsq-vit."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.binary import bits_of_codes, codes_of_bits
from reference_impls.parity._taps import tapped
from reference_impls.tokenizers.bsq_vit import BsqVit, release_arguments
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY"]


def build(config: Mapping[str, Any], _variant: str) -> BsqVit:
    """The module that the release's configuration describes."""
    return BsqVit(**release_arguments(config))


def outputs(module: BsqVit, case: ParityCase) -> dict[str, Tensor]:
    """The blocks of both transformers, the bits alone and in groups, and both ways to the image."""
    with tapped(_stages(module)) as seen:
        quantized = module.quantize_signed(case.inputs["image"])
        reconstruction = module.decode_signed(quantized.quantized)
    bits = bits_of_codes(quantized.codes, module.quantize.bits, most_significant_first=True)
    return seen | {
        "encoded_normalised": functional.normalize(seen["encoded"], dim=-1),
        "tokens": quantized.codes,
        "group_codes": codes_of_bits(bits.unflatten(-1, (-1, module.group)), most_significant_first=True),
        "quantized": quantized.quantized,
        "reconstruction": reconstruction,
        "decoded_tokens": module.decode_signed(module.quantize.lookup(quantized.codes)),
    }


def _stages(module: BsqVit) -> dict[str, nn.Module]:
    found: dict[str, nn.Module] = {
        "encoder_ln_pre": module.encoder.ln_pre,
        "encoder_output": module.encoder,
        "encoded": module.quant_embed,
        "decoder_input": module.post_quant_embed,
        "decoder_ln_pre": module.decoder.ln_pre,
        "decoder_ln_post": module.decoder.ln_post,
        "decoder_ffn": module.decoder.ffn,
    }
    for name, side in (("encoder", module.encoder), ("decoder", module.decoder)):
        found |= {f"{name}_block_{index}": block for index, block in enumerate(side.transformer)}
    return found


PARITY = Parity(build=build, outputs=outputs)
