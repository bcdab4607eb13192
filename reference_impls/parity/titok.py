"""TiTok in its released forms beside bytedance/1d-tokenizer."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from reference_impls.layers.gaussian import DiagonalGaussian
from reference_impls.parity._taps import tapped
from reference_impls.tokenizers import maskgit_vq
from reference_impls.tokenizers.maskgit_vq import MaskGitVQ
from reference_impls.tokenizers.titok import TiTok, release_arguments
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY", "as_release", "outputs", "stages"]


def build(config: Mapping[str, Any], _variant: str) -> TiTok:
    """The module that the release's configuration describes."""
    return TiTok(**release_arguments(config))


def outputs(module: TiTok, case: ParityCase) -> dict[str, Tensor]:
    """The blocks of both transformers, the bottleneck, and the image."""
    image, decode = case.inputs["image"], partial(module.decode_latents, text=case.inputs.get("text_guidance"))
    with tapped(stages(module)) as seen:
        if module.quantize is None:
            return seen | _gaussian(module.posterior(image), case.inputs["noise"], decode)
        quantized = module.quantize_images(image)
        found = {"tokens": quantized.codes[:, None], "quantized": as_release(quantized.quantized)}
        if module.decoder.gives_logits:
            logits = module.decode_logits(quantized.quantized)
            found["decoder_output"] = logits
            if module.pixel_decoder is None:
                return seen | found | _stage_one(case, logits)
            found |= _pixels(module, logits)
        else:
            found["reconstruction"] = decode(quantized.quantized)
        found = dict(seen) | found
    return found | {"decoded_tokens": decode(module.quantize.lookup(quantized.codes))}


def stages(module: TiTok) -> dict[str, nn.Module]:
    """The parts whose outputs vectors record."""
    found: dict[str, nn.Module] = {"encoded": module.encoder}
    for name, side in (("encoder", module.encoder), ("decoder", module.decoder)):
        found[f"{name}_ln_pre"] = side.ln_pre
        found |= {f"{name}_block_{index}": block for index, block in enumerate(side.transformer)}
    return found


def as_release(latents: Tensor) -> Tensor:
    """`(B, N, C)` in the release's shape `(B, C, 1, N)`."""
    return latents.transpose(1, 2).unsqueeze(2)


def _gaussian(posterior: DiagonalGaussian, noise: Tensor, decode: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    sample = posterior.sample(noise)
    sampled = decode(sample.squeeze(2).transpose(1, 2))
    # The recorded blocks are those of the mean's reconstruction, which therefore runs last.
    reconstruction = decode(posterior.mean.squeeze(2).transpose(1, 2))
    return {
        "mean": posterior.mean,
        "logvar": posterior.logvar,
        "std": posterior.std,
        "sample": sample,
        "reconstruction": reconstruction,
        "reconstruction_sampled": sampled,
    }


def _pixels(module: TiTok, logits: Tensor) -> dict[str, Tensor]:
    rows = module.pixel_rows(logits)
    return {"pixel_quantized": rows, "reconstruction": module.decode_pixels(logits)}


def _stage_one(case: ParityCase, logits: Tensor) -> dict[str, Tensor]:
    """Stage 1 ends at logits: the image is the frozen MaskGIT-VQ's, filled under its own keys."""
    arguments = {**case.config["pixel_decoder"], "codebook_size": case.config["pixel_codebook"]["size"]}
    frozen = case.fill(MaskGitVQ(**maskgit_vq.release_arguments(arguments)))
    codes = logits.argmax(1)
    return {
        "pixel_tokens": codes,
        "pixel_targets_tokens": frozen.encode(case.inputs["image"]).codes,
        "reconstruction": frozen.decode_codes(codes.flatten(1)).clamp(0.0, 1.0),
    }


PARITY = Parity(build=build, outputs=outputs)
