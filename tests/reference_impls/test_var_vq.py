"""VAR's tokenizer: the released sizes, its scales, and which phi serves which."""

import pytest
import torch

from reference_impls.tokenizers.var_vq import METHOD
from tests.reference_impls.small_tokenizers import SMALL
from tokenmark.contracts import MethodError


@pytest.mark.parametrize(("variant", "tokens"), [("ch160v4096z32", 680), ("ch160v4096z32-512", 2240)])
def test_released_sizes(variant, tokens):
    with torch.device("meta"):
        module = METHOD.build(**METHOD.variants[variant].config)
    assert (module.info.max_tokens, module.info.codebook_sizes) == (tokens, (4096,))
    assert module.info.parameters == 108_948_355
    # Scales 2 and 7 lie in the middle between two phis.
    assert module.quantize.quant_resi.places == (0, 0, 1, 1, 1, 2, 2, 3, 3, 3)


def test_codes_of_finer_scales_do_not_change_coarser_sums():
    torch.manual_seed(0)
    module = METHOD.build(**SMALL["var-vq"]).eval()
    codes = module.encode(torch.rand(2, 3, 32, 32)).codes
    other = codes.clone()
    other[:, -1] = (other[:, -1] + 1) % 64
    for before, after in list(zip(module.quantize.sums(codes), module.quantize.sums(other), strict=True))[:-1]:
        assert torch.equal(before, after)
    assert not torch.equal(module.decode_codes(codes), module.decode_codes(other))


@pytest.mark.parametrize(("share", "keys"), [(1, 1), (0, 5), (3, 3)])
def test_phis_may_be_shared_otherwise(share, keys):
    config = {"vocab_size": 8, "z_channels": 4, "ch": 32, "share_quant_resi": share, "quant_resi": 0.5}
    config |= {"quant_conv_ks": 1, "using_znorm": True, "v_patch_nums": [1, 2, 3, 4, 5], "ch_mult": [1, 1]}
    with torch.device("meta"):
        module = METHOD.build(**METHOD.from_release(config))
    assert module.image_size == 10
    assert len(module.quantize.quant_resi.qresi_ls) == keys
    for key in ("quantize.quant_resi.qresi.weight", "quantize.quant_resi.0.weight"):
        assert METHOD.layout.module_key(key) == "quantize.quant_resi.qresi_ls.0.weight"


def test_scales_must_end_at_the_grid():
    with pytest.raises(MethodError, match="the grid, 8, got 5"):
        METHOD.build(**{**SMALL["var-vq"], "scales": [1, 5]})
