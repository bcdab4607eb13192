"""LARP's tokenizer, prior and generator beside hywang66/LARP."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.larp_priors import LarpAr
from reference_impls.parity._taps import tapped
from reference_impls.tokenizers.larp import Larp, release_arguments
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY"]


def build(config: Mapping[str, Any], _variant: str) -> nn.Module:
    """The tokenizer that the release's configuration describes, or the generator, which counts layers."""
    if "n_layer" not in config:
        return Larp(**release_arguments(config))
    names = ["dim", "n_layer", "n_head", "vocab_size", "max_seq_len", "cls_token_num", "num_classes", "multiple_of"]
    names += ["use_fixed_pe", "frame_prediction"]
    return LarpAr(**{name: config[name] for name in names})


def outputs(module: nn.Module, case: ParityCase) -> dict[str, Tensor]:
    """Those of whichever network it is."""
    return _generated(module, case) if isinstance(module, LarpAr) else _tokenized(module, case)  # type: ignore[arg-type]


def _tokenized(module: Larp, case: ParityCase) -> dict[str, Tensor]:
    """The encoder, the codes, the clip; the same for fewer frames; and what the prior predicts."""
    video, quantizer = case.inputs["video"], module.bottleneck.regularizer
    parts = {"encoder_output": module.encoder, "decoder_input": module.bottleneck.out_linear}
    with tapped(parts) as seen:
        encoded = module.bottleneck.in_linear(module.encode_clips(video))
        quantized = quantizer(encoded)
        found = {
            "encoded": encoded,
            "tokens": quantized.codes,
            "quantized": quantized.quantized,
            "reconstruction": module.decode_rows(quantized.quantized, video.shape[2]),
        }
        found |= seen
    found["decoded_tokens"] = module.decode_rows(quantizer.lookup(quantized.codes), video.shape[2])
    if module.prior_model is not None:
        predicted = module.prior_model(quantized.quantized)
        found["prior_prediction"] = predicted
        found["prior_logits"] = functional.linear(predicted[:, 1:], quantizer.codebook())
    if short := case.config.get("short_frames"):
        codes = module.encode_video(video[:, :, :short]).codes
        assert codes is not None  # noqa: S101  it is a tokenizer with codes
        found["tokens_short"] = codes
        found["reconstruction_short"] = module.decode_rows(quantizer.lookup(codes), short)
    return found


def _generated(module: LarpAr, case: ParityCase) -> dict[str, Tensor]:
    """Logits with and without the condition, and the likeliest codes with and without guidance."""
    codes, condition = case.inputs["indices"].long(), case.inputs["condition"].long()
    found = {"logits": module(codes, condition)}
    if "logits_unconditional" in case.wanted:
        found["logits_unconditional"] = module(codes, condition * 0 - 1)
    if "sample_greedy" in case.wanted:
        found["sample_greedy"] = module.generate(condition)
    if "sample_cfg" in case.wanted:
        found["sample_cfg"] = module.generate(condition, cfg_scale=case.config["cfg_scale"])
    return found


PARITY = Parity(build=build, outputs=outputs)
