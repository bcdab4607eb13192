"""SD-VAE: the released size, its keys in older and newer files, and its noise."""

import pytest
import torch

from reference_impls.tokenizers.sd_vae import METHOD, release_arguments
from tests.reference_impls.latent_generators import SMALL_VAE, small_vae
from tokenmark.contracts import MethodError

HUB_CONFIG = {
    "_class_name": "AutoencoderKL",
    "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 256,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
OLDER = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
"""What files of 2022 call attention's projections."""


def release_keys(older):
    """The keys of diffusers' `AutoencoderKL` in this size, without `.weight` and `.bias`."""
    keys = ["quant_conv", "post_quant_conv"]
    for side in ("encoder", "decoder"):
        kind, blocks = ("down", 2) if side == "encoder" else ("up", 3)
        widths = [128, 128, 256, 512, 512] if side == "encoder" else [512, 512, 512, 256, 128]
        resnets = [(f"mid_block.resnets.{index}", False) for index in range(2)]
        for level in range(4):
            for index in range(blocks):
                wider = index == 0 and widths[level] != widths[level + 1]
                resnets.append((f"{kind}_blocks.{level}.resnets.{index}", wider))
            if level != 3:
                keys.append(f"{side}.{kind}_blocks.{level}.{kind}samplers.0.conv")
        for name, wider in resnets:
            parts = ["norm1", "conv1", "norm2", "conv2", *(["conv_shortcut"] if wider else [])]
            keys += [f"{side}.{name}.{part}" for part in parts]
        projections = OLDER.values() if older else OLDER
        keys += [f"{side}.mid_block.attentions.0.{part}" for part in ("group_norm", *projections)]
        keys += [f"{side}.{part}" for part in ("conv_in", "conv_norm_out", "conv_out")]
    return {f"{key}.{part}" for key in keys for part in ("weight", "bias")}


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("variant", METHOD.variants)
def test_a_variant_holds_the_released_keys(variant, older):
    with torch.device("meta"):
        module = METHOD.build(**METHOD.variants[variant].config)
    keys = release_keys(older)
    assert len(keys) == 248
    assert {METHOD.layout.module_key(key) for key in keys} == set(module.state_dict())


def test_released_size():
    with torch.device("meta"):
        info = METHOD.build(**METHOD.variants["ft-ema"].config).info
        large = METHOD.build(**METHOD.variants["ft-mse-512"].config).info
    assert (info.max_tokens, info.codebook_sizes, info.bits_per_token) == (1024, (), 128.0)
    assert info.parameters == large.parameters == 83_653_863
    assert (info.image_size, large.image_size, large.max_tokens) == (256, 512, 4096)
    assert info.stochastic


def test_a_configuration_from_the_hub_is_the_default_size():
    with torch.device("meta"):
        told = METHOD.build(image_size=256, **release_arguments(HUB_CONFIG))
        own = METHOD.build(image_size=256)
    assert {key: value.shape for key, value in told.state_dict().items()} == {
        key: value.shape for key, value in own.state_dict().items()
    }
    assert told.latent_scale == 0.18215


def test_noise_repeats_and_does_not_depend_on_the_batch():
    vae, images = small_vae(), torch.rand(3, 3, 32, 32)
    whole = vae.encode(images, generator=torch.Generator().manual_seed(7)).latents
    generator = torch.Generator().manual_seed(7)
    parts = [vae.encode(part, generator=generator).latents for part in images.split([1, 2])]
    torch.testing.assert_close(torch.cat(parts), whole)
    posterior = vae.posterior(images)
    assert not torch.allclose(whole, posterior.mean.flatten(2).transpose(1, 2))
    with pytest.raises(MethodError, match=r"torch\.Generator"):
        vae.encode(images)


def test_it_trains():
    vae, images = small_vae(), torch.rand(2, 3, 32, 32).double()
    step = vae.forward_train(images, torch.Generator().manual_seed(0))
    ((step.reconstruction - images).square().mean() + step.quantizer_loss).backward()
    assert all(parameter.grad is not None for parameter in vae.parameters())


def test_sizes_that_do_not_fit():
    with pytest.raises(MethodError, match="multiple of 4"):
        METHOD.build(**{**SMALL_VAE, "image_size": 30})
