"""VFMTok: tokens that sample a foundation model's features around places of their own."""

import pytest
import torch

from reference_impls.layers.deformable import DeformableAttention, cell_centres
from reference_impls.tokenizers.vfmtok import METHOD
from tests.reference_impls.small_tokenizers import SMALL
from tokenmark.contracts import MethodError


def test_released_size():
    with torch.device("meta"):
        module = METHOD.build(**METHOD.variants["dinov2"].config)
    assert module.info.max_tokens == 256
    assert module.info.codebook_sizes == (16384,)
    foundation = sum(parameter.numel() for parameter in module.encode_transformer.backbone.parameters())
    assert module.info.parameters - foundation == 73_352_367 - 65536
    assert not any("backbone" in key for key in module.state_dict())


def test_a_released_checkpoint_encodes_only_with_its_foundation_model():
    arguments = {**SMALL["vfmtok"], "foundation": {**SMALL["vfmtok"]["foundation"], "separate": True}}
    with pytest.raises(MethodError, match="leaves its frozen DINOv2 out"):
        METHOD.build(**arguments).encode(torch.rand(1, 3, 32, 32))


def test_registers_and_training_heads_do_not_reach_the_image():
    torch.manual_seed(0)
    module = METHOD.build(**SMALL["vfmtok"]).eval()
    tokens = module.encode(torch.rand(1, 3, 32, 32))
    before = module.decode(tokens)
    for unused in (module.decode_transformer.register_tokens, module.decode_transformer.mask_dino):
        unused.data.fill_(5.0)
    assert torch.equal(module.decode(tokens), before)


def test_sizes_that_cannot_be():
    with pytest.raises(MethodError, match="n_carrier must be a square"):
        METHOD.build(**{**SMALL["vfmtok"], "n_carrier": 8})
    with pytest.raises(MethodError, match="multiple of 4"):
        METHOD.build(**{**SMALL["vfmtok"], "image_size": 30})


@pytest.fixture
def plain():
    """Deformable attention that gives back, per query, the mean of what its points sample."""
    module = DeformableAttention(4, heads=2, levels=2, points=1)
    with torch.no_grad():
        module.sampling_offsets.bias.zero_()
        for projection in (module.value_proj, module.output_proj):
            projection.weight.copy_(torch.eye(4))
            projection.bias.zero_()
    return module


def test_deformable_attention_samples_bilinearly_with_zeros_outside(plain):
    maps = [torch.rand(1, 4, 3, 3), torch.rand(1, 4, 3, 3)]
    expected = sum(maps).flatten(2).transpose(1, 2) / 2
    with torch.no_grad():
        torch.testing.assert_close(plain(torch.zeros(1, 9, 4), cell_centres(3, 3), maps), expected)
        plain.sampling_offsets.bias.copy_(torch.tensor([1.0, 0.0]).repeat(4))  # one cell to the right
        found = plain(torch.zeros(1, 9, 4), cell_centres(3, 3), maps).unflatten(1, (3, 3))
    torch.testing.assert_close(found[:, :, :2], expected.unflatten(1, (3, 3))[:, :, 1:])
    assert (found[:, :, 2] == 0).all()


def test_offsets_are_in_cells_of_each_map(plain):
    maps = [torch.zeros(1, 4, 2, 2), torch.arange(4.0).repeat(1, 4, 4, 1)]
    with torch.no_grad():
        plain.sampling_offsets.bias.copy_(torch.tensor([1.0, 0.0]).repeat(4))
        found = plain(torch.zeros(1, 1, 4), torch.tensor([[0.5, 0.5]]), maps)
    torch.testing.assert_close(found, torch.full((1, 1, 4), 2.5 / 2))
