"""What tests of generators in SD-VAE's latents share: a small autoencoder, weights that matter, seeded noise."""

import torch

from reference_impls.tokenizers.sd_vae import SdVae

SMALL_VAE = {"image_size": 32, "ch": 32, "ch_mult": [1, 1, 1], "num_res_blocks": 1}
"""64 latents of 4 channels for 32x32 images."""


def small_vae(**changes):
    torch.manual_seed(1)
    return SdVae(**{**SMALL_VAE, **changes}).double().eval()


def with_drawn_weights(module):
    """Every weight drawn: as they are made, all gates and the last layer are zeros."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return module.double().eval()


def seeded(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]
