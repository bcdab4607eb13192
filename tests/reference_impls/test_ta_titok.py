"""TA-TiTok: sizes of its releases, and a decoder that listens to its text."""

import pytest
import torch

from reference_impls.tokenizers.ta_titok import METHOD
from tests.reference_impls.small_tokenizers import SMALL
from tokenmark.contracts import MethodError

RELEASED = {
    "bl32-vq": (32, 390_800_532),
    "bl64-vq": (64, 390_882_452),
    "bl128-vq": (128, 391_046_292),
    "bl32-vae": (32, 390_202_484),
    "bl64-vae": (64, 390_284_404),
    "sl128-vae": (128, 330_275_188),
}


@pytest.mark.parametrize("variant", RELEASED)
def test_released_sizes(variant):
    with torch.device("meta"):
        info = METHOD.build(**METHOD.variants[variant].config).info
    assert (info.max_tokens, info.parameters) == RELEASED[variant]
    assert info.text == (77, 768)
    assert info.stochastic == variant.endswith("vae")


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(0)
    return METHOD.build(**SMALL["ta-titok"]).eval()


def test_the_text_changes_the_image_and_not_the_code(module):
    tokens = module.encode(torch.rand(2, 3, 32, 32))
    text = torch.randn(2, *module.info.text)
    image = module.decode(tokens, text=text)
    swapped = module.decode(tokens, text=text.flip(0))
    assert (image - swapped).abs().amax((1, 2, 3)).min() > 1e-5


def test_text_that_does_not_fit(module):
    tokens = module.encode(torch.rand(2, 3, 32, 32))
    count, channels = module.info.text
    for text in (None, torch.zeros(1, count, channels), torch.zeros(2, count + 1, channels)):
        with pytest.raises(MethodError, match=rf"text features.*\(2, {count}, {channels}\)"):
            module.decode(tokens, text=text)


def test_training_reaches_every_parameter(module):
    step = module.forward_train(torch.rand(2, 3, 32, 32), text=torch.randn(2, *module.info.text))
    (step.reconstruction.square().mean() + step.quantizer_loss).backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
