"""The benchmark of the tokenizers, at a size that takes no time: the rivals are plain, and give the same."""

import pytest
import torch
from click.testing import CliRunner

from benchmarks import tokenizers
from reference_impls.layers import ldm_conv, titok_vit
from tests.reference_impls.small_tokenizers import SMALL
from tokenmark import build, registry

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["titok", "llamagen-vq", "mar-vae"])
def test_rivals_are_plain_and_give_the_same(name):
    torch.manual_seed(0)
    module = registry.get(name).build(**SMALL[name]).eval()
    rival = tokenizers.plain(module)
    assert not any(isinstance(part, titok_vit.Attention | ldm_conv.AttnBlock) for part in rival.modules())
    images = torch.rand(2, 3, 32, 32)
    for who in tokenizers.contenders(module, images):
        ours, theirs = (call(images) for call in who.values())
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_it_runs_and_writes_the_page(tmp_path, monkeypatch):
    small = registry.get("titok").build(**SMALL["titok"]).eval()
    monkeypatch.setattr(build, "drawn_tokenizer", lambda *_: small)
    page = tmp_path / "measured.md"
    arguments = ["--sizes", "titok/s128", "--rounds", "2", "--device", "cpu", "--output", str(page)]
    done = CliRunner().invoke(tokenizers.main, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    assert "titok/s128, encode 2 images, beside plain modules" in page.read_text()
    assert "titok/s128, decode 2 images, beside plain modules" in page.read_text()
