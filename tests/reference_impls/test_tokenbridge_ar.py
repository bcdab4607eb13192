"""TokenBridge's generator: its checkpoints' sizes, the order in which it writes, and what its knobs do."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_impls.generators.tokenbridge_ar import METHOD, TokenBridgeSettings, release_arguments
from reference_impls.layers.class_generator import Watch
from reference_impls.layers.mar_sampling import iterations
from reference_impls.layers.noise import Draws, exponential
from reference_impls.layers.tokenbridge_network import CHANNEL_ORDER
from tests.reference_impls.latent_generators import seeded
from tests.reference_impls.small_generators import SMALL, built
from tests.vector_case import VECTORS
from tokenmark import registry
from tokenmark.contracts import MethodError, TokenizerMethod
from tokenmark.parity.compare import key_problems
from tokenmark.parity.vector import load

CONFIG = SMALL["tokenbridge-ar"].config
CPU = torch.device("cpu")
COMPUTED = {"channels.mask", "quantize.reconstruction_values", "quantize.boundaries"}


@pytest.fixture(scope="module")
def small():
    return built("tokenbridge-ar", None).double()


def codes_of(module, labels, seeds, **changes):
    noise = Draws(seeded(*seeds), CPU)
    return module.generate(torch.tensor(labels), TokenBridgeSettings(**{"steps": 4, **changes}), noise, Watch())


@pytest.mark.parametrize(("variant", "name", "parameters"), [("l", "large", 486_889_472), ("h", "huge", 910_040_576)])
def test_a_variant_holds_its_checkpoint_and_fits_its_tokenizer(variant, name, parameters):
    manifest, size = load(VECTORS / f"tokenbridge__tokenbridge_{name}.manifest.json"), METHOD.variants[variant]
    method, _, tokenizer = size.tokenizer.partition("/")
    with torch.device("meta"):
        reader = registry.get_as(TokenizerMethod, method)
        module = METHOD.build(reader.build(**reader.variants[tokenizer].config), **size.config)
        whole = METHOD.build(None, **size.config, saved_tables=True)
    assert not key_problems(whole, manifest, METHOD.layout)
    assert set(whole.state_dict()) - set(module.state_dict()) == COMPUTED
    # Averaged weights have none of what is computed, and what else lies in a file of plain ones is left out.
    kept = {key for key in manifest.parameters if not key.startswith(METHOD.layout.ignored)}
    assert {METHOD.layout.module_key(key) for key in kept} == set(module.state_dict())
    assert module.parameters_total == parameters


@pytest.mark.parametrize(("variant", "gfid"), [("l", "1.76"), ("h", "1.55")])
def test_presets_are_the_readme_s_rows(variant, gfid):
    preset = METHOD.presets[f"tokenbridge-ar-{variant}-paper"]
    assert preset.printed.endswith(gfid)
    with torch.device("meta"):
        assert METHOD.build(None, **CONFIG).steps(preset.settings) == 16  # as many as tokens, of 256 iterations
    assert len(iterations(256, preset.settings.steps, 1.0, "linear")) == 256


@pytest.mark.parametrize("steps", [1, 4, 16, 40])
def test_every_token_is_written_and_stays(small, monkeypatch, steps):
    shown, features = [], small.features
    monkeypatch.setattr(
        small,
        "features",
        lambda latents, visible, *rest: shown.append((latents, visible)) or features(latents, visible, *rest),
    )
    codes = codes_of(small, [1, 4], [5, 6], steps=steps, cfg_scale=1.0)
    assert codes.shape == (2, 16, 16)
    assert 0 <= codes.min() <= codes.max() < 8
    assert [len(visible[0]) for _, visible in shown] == sorted(len(visible[0]) for _, visible in shown)
    final = small.quantize.values(codes)
    for latents, visible in shown:
        places = visible[..., None].expand(-1, -1, 16)
        assert torch.equal(latents.gather(1, places), final.gather(1, places))


def test_temperature_and_guidance(small):
    labels, seeds = [1, 4], [5, 6]
    drawn = codes_of(small, labels, seeds)
    assert not torch.equal(drawn, codes_of(small, labels, [7, 8]))
    assert not torch.equal(drawn, codes_of(small, labels, seeds, cfg_scale=8.0))
    assert not torch.equal(drawn, codes_of(small, labels, seeds, cfg_schedule="constant"))
    likeliest = codes_of(small, labels, seeds, temperature=0.0)
    assert torch.equal(likeliest, codes_of(small, labels, seeds, temperature=1e-6))
    assert not torch.equal(likeliest, drawn)
    plain, nearly = (codes_of(small, labels, seeds, cfg_scale=scale) for scale in (1.0, 1.0 + 1e-12))
    assert torch.equal(plain, nearly)


def test_the_cached_head_draws_from_what_the_whole_one_predicts(small):
    """With codes forced through by noise that leaves no choice, cached logits are those of all steps at once."""
    head, generator = small.channels, torch.Generator().manual_seed(0)
    features = torch.randn(3, 32, generator=generator).double()
    codes = torch.randint(8, (3, 16), generator=generator)
    written = codes[:, list(CHANNEL_ORDER)]
    never = torch.full((3, 16, 8), 1e300, dtype=torch.float64).scatter(2, written[..., None], 1e-300)
    seen = []
    watch = Watch()
    watch.see = lambda numbers: seen.append(numbers) or numbers
    assert torch.equal(head.sample(features, never, watch=watch), codes)
    condition = head.condition_proj(features)
    before = [embedding(written[:, step]) for step, embedding in enumerate(head.token_embeddings)]
    # The sampler's first step has its time added, unlike that of training.
    first = condition + head.timesteps_embeddings[:, 0]
    x = torch.stack([first, *before], dim=1) + head.embed
    for block in head.blocks:
        x = block(x, condition[:, None] + head.timesteps_embeddings)
    x = head.final(head.norm(x), condition[:, None] + head.timesteps_embeddings)
    expected = torch.stack([head.heads[step](x[:, step]) for step in range(16)], dim=1)
    torch.testing.assert_close(seen[0], expected)


def test_channels_are_written_in_the_release_s_order(small):
    features, codes = torch.randn(3, 32).double(), torch.randint(0, 8, (3, 16))
    logits = small.channels(features, codes)
    for place in (0, 7, 14):  # a code changes the logits of what is written after it, and of nothing else
        other = codes.clone()
        channel = CHANNEL_ORDER[place]
        other[:, channel] = (other[:, channel] + 1) % 8
        changed = (small.channels(features, other) - logits).abs().amax((0, 2)) > 0
        assert not changed[: place + 1].any()
        assert changed[place + 1 :].all()


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0.05, 1.0), min_size=2, max_size=5), st.integers(0, 2**31))
def test_clocks_draw_each_code_as_often_as_it_is_likely(weights, seed):
    """By the race of exponential clocks: P(argmax of log p - log E = k) = p_k."""
    chances = torch.tensor(weights).double() / sum(weights)
    uniform = torch.rand(20_000, len(weights), generator=torch.Generator().manual_seed(seed)).double()
    drawn = (chances.log() - exponential(uniform).log()).argmax(-1)
    shares = drawn.bincount(minlength=len(weights)) / len(drawn)
    assert (shares - chances).abs().max() < 5 * (0.25 / len(drawn)) ** 0.5


def test_sizes_that_do_not_go_together():
    with pytest.raises(MethodError, match="multiple of its number of heads, 5, got 24"):
        METHOD.build(None, **{**CONFIG, "channel_heads": 5})
    config = load(VECTORS / "tokenbridge__reduced_generator.json").config
    with pytest.raises(MethodError, match="patch_size must be 1, got 2"):
        release_arguments({**config, "patch_size": 2})
