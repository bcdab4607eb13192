"""What tests of MAR and its heirs share: a small autoencoder, and tokens from seeds."""

import torch

from reference_impls.layers.class_generator import Watch
from reference_impls.layers.noise import Draws
from reference_impls.tokenizers.mar_vae import MINI_CONFIG, MarVAE
from tests.reference_impls.latent_generators import seeded


def small_vae(**changes):
    """64 latents of 4 channels for 32x32 images."""
    torch.manual_seed(1)
    return MarVAE(**{**MINI_CONFIG, **changes}).double().eval()


def tokens_of(module, labels, seeds, settings):
    noise = Draws(seeded(*seeds), torch.device("cpu"))
    return module.generate(torch.tensor(labels), settings, noise, Watch())
