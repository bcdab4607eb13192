"""FlexTok: sizes, nested lengths, and the noise of both ways."""

import pytest
import torch

from reference_impls.tokenizers.flextok import METHOD, FlexTok, release_arguments
from tests.reference_impls.small_tokenizers import SMALL
from tokenmark.contracts import MethodError, Tokens

VAE = 83_821_011
TABLES = 256 * 768 * 2
"""The two fixed tables of d12-d12, which are in the checkpoint but are no parameters."""


@pytest.fixture(scope="module")
def tokenizer():
    torch.manual_seed(0)
    module = FlexTok(**SMALL["flextok"]).eval()
    with torch.no_grad():
        for parameter in module.decoder.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))  # adaLN-Zero's zeros hide the blocks
    return module


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("variant", METHOD.variants)
def test_released_sizes(variant):
    with torch.device("meta"):
        module = METHOD.build(**METHOD.variants[variant].config)
    assert module.info.max_tokens == 256
    assert module.info.codebook_sizes == (64_000,)
    assert sum(parameter.numel() for parameter in module.vae.parameters()) == VAE
    if variant == "d12-d12-in1k":
        assert module.info.parameters == 85_382_406 + 172_448_320 + VAE - TABLES


def test_a_scaling_factor_that_nobody_knows_is_asked_for(images):
    module = FlexTok(**{**SMALL["flextok"], "scaling_factor": None})
    with pytest.raises(MethodError, match=r"config\.json"):
        module.encode(images, generator=seeded())


def test_a_prefix_is_a_prefix(tokenizer, images):
    whole = tokenizer.encode(images, generator=seeded())
    short = tokenizer.encode(images, tokens=3, generator=seeded())
    assert torch.equal(short.codes, whole.codes[:, :3])
    assert short.lengths.tolist() == [3, 3]
    assert tokenizer.decode(short, seeded()).shape == images.shape


def test_what_lies_behind_a_length_is_not_seen(tokenizer, images):
    whole = tokenizer.encode(images, generator=seeded())
    lengths = torch.tensor([2, 5])
    padded = whole.codes * (torch.arange(whole.codes.shape[1]) < lengths[:, None])
    decoded = tokenizer.decode(Tokens(lengths=lengths, bits=whole.bits, codes=padded), seeded())
    for index, length in enumerate(lengths.tolist()):
        noise = seeded()
        for _ in range(index):
            torch.randn(4, 16, 16, generator=noise)  # what the images before it drew
        alone = Tokens(
            lengths=lengths[index : index + 1], bits=whole.bits[:1], codes=whole.codes[index : index + 1, :length]
        )
        torch.testing.assert_close(tokenizer.decode(alone, noise)[0], decoded[index], atol=1e-4, rtol=0)


def test_an_earlier_register_sees_no_later_one(tokenizer, images):
    latents = tokenizer.posterior(images).mean
    before = tokenizer.encode_latents(latents)
    kept = tokenizer.encoder.registers.data.clone()
    tokenizer.encoder.registers.data[4:] *= -1.0
    after = tokenizer.encode_latents(latents)
    tokenizer.encoder.registers.data.copy_(kept)
    torch.testing.assert_close(after[:, :4], before[:, :4])
    assert not torch.allclose(after[:, 4:], before[:, 4:])


def test_the_mean_can_be_taken_instead_of_a_draw(images):
    torch.manual_seed(0)
    module = FlexTok(**{**SMALL["flextok"], "sample_posterior": False}).eval()
    assert not module.info.stochastic
    assert torch.equal(module.encode(images).codes, module.encode(images).codes)
    with pytest.raises(MethodError, match="decode"):
        module.decode(module.encode(images))


def test_guidance_and_steps_change_the_image(tokenizer, images):
    tokens = tokenizer.encode(images, generator=seeded())
    plain = tokenizer.decode(tokens, seeded())
    for name, value in (("guidance", "cfg"), ("guidance_scale", 1.0), ("sample_steps", 3)):
        kept = getattr(tokenizer, name)
        setattr(tokenizer, name, value)
        assert not torch.allclose(tokenizer.decode(tokens, seeded()), plain)
        setattr(tokenizer, name, kept)


def test_the_hub_tree_gives_two_numbers():
    tree = {
        "decoder": {"time": {"max_timestep": 1000}, "blocks": [{"max_timestep": 1000.0}]},
        "vae": {"scaling_factor": 0.5},
    }
    assert release_arguments(tree) == {"scaling_factor": 0.5, "max_timestep": 1000.0}
    assert release_arguments({"decoder": {}}) == {}
    tree["vae"]["max_timestep"] = 1
    with pytest.raises(MethodError, match="several values of max_timestep"):
        release_arguments(tree)


def test_configurations_of_another_kind_are_refused():
    with pytest.raises(MethodError, match="adaLN_expansion"):
        release_arguments({"num_registers": 256, "adaLN_expansion": 1})
    with pytest.raises(MethodError, match="multiple of 4"):
        FlexTok(**{**SMALL["flextok"], "image_size": 30})
    with pytest.raises(MethodError, match="head_dim"):
        FlexTok(**{**SMALL["flextok"], "decoder": {"dim": 33, "depth": 1}})
