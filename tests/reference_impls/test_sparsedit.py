"""FlexDiT: its sizes, its blocks on few tokens, and what it refuses (its numbers: test_parity)."""

import pytest
import torch

from reference_impls.generators.sparsedit import METHOD
from reference_impls.layers.dit_blocks import DiTBlock
from reference_impls.layers.dumbbell import BiasedBlock, Dumbbell, PooledAttention
from reference_impls.layers.latent_diffusion import DiffusionSettings
from tests.reference_impls.latent_generators import seeded, small_vae, with_drawn_weights
from tests.vector_case import VECTORS
from tokenmark import registry
from tokenmark.contracts import MethodError, TokenizerMethod
from tokenmark.parity.compare import key_problems
from tokenmark.parity.vector import load

SMALL = {
    "input_size": 8,
    "hidden_size": 32,
    "depth": 6,
    "num_heads": 2,
    "num_classes": 10,
    "num_poolingformer": 1,
    "num_dumbbell": 1,
    "num_normal_block": 1,
    "semantic_size": 2,
    "dumbbell_group": (1, 1, 1, 1),
}


@pytest.fixture(scope="module")
def small():
    return with_drawn_weights(METHOD.build(small_vae(), **SMALL))


@pytest.mark.parametrize(("variant", "parameters"), [("xl-2-256", 683_099_168), ("xl-2-512", 681_327_392)])
def test_variant_holds_the_manifest_and_fits_its_tokenizer(variant, parameters):
    manifest, size = load(VECTORS / f"sparsedit__dit-{variant}.manifest.json"), METHOD.variants[variant]
    method, _, tokenizer = size.tokenizer.partition("/")
    with torch.device("meta"):
        reader = registry.get_as(TokenizerMethod, method)
        module = METHOD.build(reader.build(**reader.variants[tokenizer].config), **size.config)
    assert not key_problems(module, manifest, METHOD.layout)
    assert module.parameters_total == parameters
    official, paper = manifest.config["sampling"], METHOD.presets[f"sparsedit-{variant}-paper"].settings
    assert (paper.steps, paper.cfg_scale) == (official["num_sampling_steps"], official["cfg_scale"])


def test_no_guidance_is_the_network_itself(small):
    x, times, labels = torch.randn(2, 4, 8, 8).double(), torch.tensor([900, 30]), torch.tensor([0, 9])
    torch.testing.assert_close(small.guided(x, times, labels, 1.0), small(x, times, labels))
    assert not torch.allclose(small.guided(x, times, labels, 2.0), small(x, times, labels))


def test_few_tokens_enter_the_semantic_blocks(small):
    seen = []
    hook = (
        small.dumbbell_blocks[0].semantic_blocks[0].register_forward_hook(lambda _m, given, _o: seen.append(given[0]))
    )
    small.sample(torch.tensor([1]), seeded(1), DiffusionSettings(1, 1.0))
    hook.remove()
    assert [tokens.shape for tokens in seen] == [(1, 4, 32)]


def test_pooling_is_attention_with_equal_weights():
    torch.manual_seed(0)
    attention, x = PooledAttention(8).double(), torch.randn(2, 5, 8).double()
    weights = torch.full((5, 5), 0.2).double()
    torch.testing.assert_close(attention(x).expand(-1, 5, -1), attention.proj(weights @ attention.v(x)))


def test_few_tokens_are_means_of_squares():
    dumbbell = Dumbbell(width=8, heads=2, mlp_ratio=1.0, grid=4, few=2, blocks=(1, 1, 1, 1))
    x = torch.arange(16.0)[None, :, None].expand(1, 16, 8)
    assert dumbbell.pooled(x)[0, :, 0].tolist() == [2.5, 4.5, 10.5, 12.5]


def test_a_block_without_bias_is_that_of_dit():
    torch.manual_seed(0)
    plain, biased = DiTBlock(8, 2).double(), BiasedBlock(8, 2).double()
    with_drawn_weights(plain)
    biased.load_state_dict(plain.state_dict())
    x, condition = torch.randn(2, 5, 8).double(), torch.randn(2, 8).double()
    torch.testing.assert_close(biased(x, condition), plain(x, condition))
    torch.testing.assert_close(biased(x, condition, torch.full((2, 5, 5), 3.0)), plain(x, condition))
    assert not torch.allclose(biased(x, condition, torch.randn(2, 5, 5)), plain(x, condition))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"semantic_size": 3}, "semantic_size must divide 4 patches per side, got 3"),
        ({"semantic_size": 0}, "semantic_size must divide"),
        ({"depth": 7}, "depth must be the number of blocks, 6, got 7"),
        ({"dumbbell_group": (1, 1, 2)}, "four numbers of blocks"),
        ({"dumbbell_group": (1, 2, 0, 1)}, "four numbers of blocks, the third at least 1"),
        ({"attn_relat_pos": "sin"}, "attn_relat_pos must be relat or none"),
    ],
)
def test_sizes_that_do_not_fit(changes, message):
    with pytest.raises(MethodError, match=message):
        METHOD.build(None, **{**SMALL, **changes})
