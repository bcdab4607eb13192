"""FlowTok: its sizes are the paper's, its flow is straight where it should be, and its losses are what they say."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from reference_impls.generators.flowtok_reading import METHOD, FlowTokSettings, build
from reference_impls.layers.class_generator import Watch
from reference_impls.layers.flowtok_losses import (
    PAPER,
    RELEASED,
    TrainRules,
    contrast,
    divergence,
    drawn_times,
    unpaired,
)
from reference_impls.layers.flowtok_network import TextGaussian
from reference_impls.layers.noise import Draws
from tokenmark.contracts import MethodError, TokenizerInfo

TINY = {
    "width": 16,
    "depth": 2,
    "heads": 2,
    "length": 3,
    "channels": 4,
    "text_channels": 8,
    "pooled_channels": 8,
    "text_depth": 2,
    "text_heads": 2,
    "text_hidden": 16,
}


def lively(module):
    """In float64, all gates open."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return module.double().eval()


@pytest.fixture
def tiny():
    return lively(build(None, **TINY))


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def noise(*seeds):
    return Draws([torch.Generator().manual_seed(seed) for seed in seeds], torch.device("cpu"))


@pytest.mark.parametrize(("variant", "printed"), [("b", 153e6), ("xl", 698e6), ("h", 1.09e9)])
def test_sizes_are_those_of_the_papers_table(variant, printed):
    """To its digits: the DiT and the text projector; what compares texts in training is not in all of them."""
    with torch.device("meta"):
        module = METHOD.build(None, **METHOD.variants[variant].config)
    assert abs(module.parameters_total - printed) < max(1e6, 0.005 * printed)
    assert module.told == (77, 768, 768)


class Straight(nn.Module):
    """A flow of one velocity for each value of the bit."""

    def __init__(self, paired, null):
        super().__init__()
        self.velocities, self.calls = (null, paired), []

    def forward(self, x, times, paired):
        self.calls.append((len(x), times[0].item()))
        return torch.stack([self.velocities[bit] for bit in paired.tolist()])


@pytest.mark.parametrize("steps", [1, 4])
def test_a_straight_flow_arrives(tiny, steps):
    """From the text at time 0 to the image at time 1, whatever the number of steps, guided along the same latents."""
    states, to, away = random(2, 3, 8), random(3, 4, seed=1), random(3, 4, seed=2)
    start = tiny.text(states).drawn(torch.stack([noise(seed).normal("text", 0, 3, 4)[0] for seed in (5, 6)]))
    tiny.flow = Straight(to, away)
    for scale, rows in ((1.0, 2), (2.5, 4), (0.0, 4)):
        tiny.flow.calls.clear()
        settings = FlowTokSettings(steps=steps, cfg_scale=scale)
        found = tiny.generate(states, settings, noise(5, 6), Watch())
        expected = (start + away + scale * (to - away)) / 1.0143
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        assert tiny.flow.calls == [(rows, step / steps) for step in range(steps)]
        assert tiny.steps(settings) == steps


def test_a_mean_is_no_draw(tiny):
    states = random(1, 3, 8)
    mean = FlowTokSettings(steps=2, source="mean")
    assert torch.equal(tiny.generate(states, mean, noise(1), Watch()), tiny.generate(states, mean, noise(2), Watch()))
    drawn = FlowTokSettings(steps=2)
    assert not torch.equal(
        tiny.generate(states, drawn, noise(1), Watch()), tiny.generate(states, drawn, noise(2), Watch())
    )


def test_divergence_is_that_of_gaussians():
    text = TextGaussian(random(2, 3, 4), random(2, 3, 4, seed=1))
    normal = torch.distributions.Normal(text.mean, text.log_variance.mul(0.5).exp())
    exact = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0))
    torch.testing.assert_close(divergence(text, "standard"), exact.sum((1, 2)).mean())


def test_divergence_with_the_sixth_power_is_its_formula():
    text = TextGaussian(random(2, 3, 4), random(2, 3, 4, seed=1))
    total = 0.0
    for mean, log_variance in zip(text.mean.flatten().tolist(), text.log_variance.flatten().tolist(), strict=True):
        total -= 0.5 * (1.0 + log_variance - (0.3 * mean) ** 6 - math.exp(log_variance))
    assert divergence(text, "sixth-power").item() == pytest.approx(total / 2)
    small = TextGaussian(torch.full((1, 1, 1), 0.5), torch.zeros(1, 1, 1))
    assert divergence(small, "sixth-power") < 1e-4 < divergence(small, "standard")


def test_contrast_is_its_formula():
    left, right, log_scale = random(3, 2, 2), random(3, 2, 2, seed=1), torch.tensor(0.7, dtype=torch.float64)
    cosine = [
        [math.exp(0.7) * torch.cosine_similarity(a.flatten(), b.flatten(), dim=0).item() for b in right] for a in left
    ]
    total = 0.0
    for i in range(3):
        total -= math.log(math.exp(cosine[i][i]) / sum(math.exp(value) for value in cosine[i]))
        total -= math.log(math.exp(cosine[i][i]) / sum(math.exp(row[i]) for row in cosine))
    assert contrast(left, right, log_scale).item() == pytest.approx(total / 6)


@given(st.lists(st.booleans(), min_size=1, max_size=8))
def test_null_images_learn_another_null_ones(null):
    found = unpaired(torch.arange(len(null)), torch.tensor(null)).tolist()
    among = [place for place, is_null in enumerate(null) if is_null]
    assert sorted(found[place] for place in among) == among
    assert all(found[place] == place for place in range(len(null)) if place not in among)
    assert len(among) < 2 or all(found[place] != place for place in among)


def test_times_are_of_their_law():
    given_noise = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
    expected = [1.0 / (1.0 + math.exp(-value)) for value in (-1.0, 0.0, 1.0)]
    assert drawn_times(PAPER, given_noise).tolist() == pytest.approx(expected)
    uniform = drawn_times(TrainRules(times="uniform"), random(4000))
    assert 0.0 < uniform.min() < uniform.max() < 1.0
    assert uniform.var().item() == pytest.approx(1 / 12, rel=0.05)


@pytest.mark.parametrize("rules", [PAPER, RELEASED, TrainRules(kl_weight=0.5, align_weight=2.0)])
def test_losses_are_their_formulas(tiny, rules):
    """One image at a time: the path's place, the velocity along it, and the weighted sum."""
    latents, states, drawn = random(3, 3, 4), random(3, 3, 8, seed=1), random(3, 3, 4, seed=2)
    times, null = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64), torch.tensor([True, False, True])
    found = tiny.losses(latents, states, drawn, times, null, rules)
    errors = []
    for i, other in enumerate((2, 1, 0)):
        text = tiny.text(states[i : i + 1])
        start = text.mean + text.log_variance.exp().sqrt() * drawn[i]
        target = latents[other] * 1.0143
        at = (1.0 - (1.0 - 1e-5) * times[i]) * start + times[i] * target
        velocity = tiny.flow(at, times[i : i + 1], torch.tensor([0 if null[i] else 1]))
        errors.append((velocity - (target - (1.0 - 1e-5) * start)).square().mean())
    torch.testing.assert_close(found.flow, torch.stack(errors).mean())
    text = tiny.text(states)
    torch.testing.assert_close(found.kl, divergence(text, rules.kl))
    torch.testing.assert_close(found.align, contrast(tiny.align(states), text.drawn(drawn), tiny.log_temperature))
    total = found.flow + rules.kl_weight * found.kl + rules.align_weight * found.align
    torch.testing.assert_close(found.total, total)
    found.total.backward()
    assert all(weight.grad is not None for weight in tiny.parameters())


def test_bad_arguments_say_what_is_wrong():
    for changes in ({"kl": "sixth"}, {"times": "normal"}, {"kl_weight": -1.0}, {"align_weight": math.nan}):
        with pytest.raises(MethodError, match=next(iter(changes))):
            TrainRules(**changes)
    with pytest.raises(MethodError, match="multiples of their heads"):
        build(None, **{**TINY, "heads": 3})

    class Told:
        info = TokenizerInfo(
            image_size=2,
            max_tokens=3,
            codebook_sizes=(),
            bits_per_token=128.0,
            variable_length=False,
            stochastic=False,
            parameters=0,
            text=(4, 8),
        )

    with pytest.raises(MethodError, match="told texts of"):
        build(Told(), **TINY)
