"""KL-16 beside LTH14/mar."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from reference_impls.parity._ldm import ldm_stages, of_whole_size
from reference_impls.parity._taps import tapped
from reference_impls.tokenizers.mar_vae import MarVAE, release_arguments
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY"]


def build(config: Mapping[str, Any], _variant: str) -> MarVAE:
    """The module that the release's configuration describes."""
    return MarVAE(**of_whole_size(release_arguments(config), len(config["ch_mult"])))


def outputs(module: MarVAE, case: ParityCase) -> dict[str, Tensor]:
    """Every level, the Gaussian, and the images of its mean and of a sample."""
    vae = module.vae
    stages = ldm_stages(vae.encoder, vae.decoder)
    stages |= {"encoded": vae.quant_conv, "decoder_input": vae.post_quant_conv}
    with tapped(stages) as seen:
        posterior = vae.posterior(case.inputs["image"])
        reconstruction = vae.decode(posterior.mean)
    sample = posterior.sample(case.inputs["noise"])
    scaled = sample * module.latent_scale
    return seen | {
        "mean": posterior.mean,
        "logvar": posterior.logvar,
        "std": posterior.std,
        "sample": sample,
        "scaled_sample": scaled,
        "reconstruction": reconstruction,
        "reconstruction_sampled": vae.decode(scaled / module.latent_scale),
    }


PARITY = Parity(build=build, outputs=outputs)
