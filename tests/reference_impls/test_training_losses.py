"""Training losses against what the papers' equations give, number by number."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributions
from torch.nn import functional

from reference_impls.generators.dit import METHOD as DIT
from reference_impls.generators.llamagen_gpt import METHOD as LLAMAGEN
from reference_impls.generators.rar import METHOD as RAR
from reference_impls.layers.diffusion import linear_betas, respaced_steps
from reference_impls.layers.latent_diffusion import ImplicitDiffusion
from reference_impls.layers.training_losses import NoiseLoss, next_code_loss, some_dropped
from tests.reference_impls.latent_generators import with_drawn_weights

BETAS = linear_betas(1000)
KEPT = np.cumprod(1.0 - BETAS)
SAMPLER = ImplicitDiffusion(BETAS, respaced_steps(1000, 1000))


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_cross_entropy_of_the_next_code_is_the_mean_surprise_at_each():
    table = drawn(3, 4, 5)

    def predict(codes, labels):
        assert codes.shape == (2, 3)
        return table[labels][:, : codes.shape[1] + 1] + functional.pad(codes, (1, 0))[..., None] * torch.arange(5)

    codes, labels = torch.tensor([[0, 4, 2, 1], [3, 3, 0, 0]]), torch.tensor([2, 0])
    surprise = []
    for row, label in zip(codes.tolist(), labels.tolist(), strict=True):
        for place, code in enumerate(row):
            before = row[place - 1] if place else 0
            scores = [float(table[label, place, k]) + before * k for k in range(5)]
            surprise.append(math.log(sum(math.exp(score) for score in scores)) - scores[code])
    assert float(next_code_loss(predict, codes, labels)) == pytest.approx(sum(surprise) / 8)


@pytest.mark.parametrize(
    ("method", "config", "name"),
    [
        (
            LLAMAGEN,
            {"dim": 16, "n_layer": 1, "n_head": 2, "block_size": 4, "vocab_size": 6, "num_classes": 3},
            "logits",
        ),
        (
            RAR,
            {
                "codebook_size": 6,
                "image_seq_len": 4,
                "condition_num_classes": 3,
                "hidden_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "intermediate_size": 16,
            },
            "forward",
        ),
    ],
)
def test_no_code_is_predicted_from_itself_or_from_later_ones(method, config, name):
    """The gradient of a code's own term reaches the codes in front of it, and no other."""
    module = with_drawn_weights(method.build(None, **config))
    codes, labels = torch.tensor([[1, 5, 0, 2]]), torch.tensor([1])
    whole = getattr(module, name)(codes[:, :-1], labels)
    assert whole.shape == (1, 4, 6)
    for place in range(3):
        changed = codes.clone()
        changed[0, place] = 3
        moved = (getattr(module, name)(changed[:, :-1], labels) - whole).abs().amax((0, 2)) > 1e-12
        assert moved.tolist() == [False] * (place + 1) + [True] * (3 - place)


@settings(max_examples=30)
@given(share=st.floats(0, 1), seed=st.integers(0, 2**32 - 1))
def test_dropped_labels_are_the_dropped_class_and_the_others_stay(share, seed):
    labels = torch.arange(200) % 7
    found = some_dropped(labels, 7, share, torch.Generator().manual_seed(seed))
    gone = found == 7
    assert torch.equal(found[~gone], labels[~gone])
    assert abs(int(gone.sum()) - 200 * share) <= 6 * math.sqrt(200 * share * (1 - share)) + 1e-9


def loss_of(clean, time, noise, output):
    """The loss of one image whose network gives `output`, and what it was shown."""
    shown = []

    def network(noisy, times):
        shown.append((noisy, times))
        return output

    value = NoiseLoss(BETAS)(network, clean, torch.tensor([time]), noise)
    return float(value[0]), shown[0]


@pytest.mark.parametrize("time", [1, 2, 500, 999])
def test_a_step_costs_the_squared_error_and_the_divergence_from_the_true_posterior(time):
    """The posterior is made by Bayes' rule from the two Gaussians of the forward process, without its closed form."""
    clean, noise, output = drawn(1, 2, 3, 3), drawn(1, 2, 3, 3, seed=1), drawn(1, 4, 3, 3, seed=2) / 3
    value, (noisy, times) = loss_of(clean, time, noise, output)
    assert times.tolist() == [time]
    expected = math.sqrt(KEPT[time]) * clean + math.sqrt(1 - KEPT[time]) * noise
    torch.testing.assert_close(noisy, expected, rtol=0, atol=1e-12)

    # before ~ N(sqrt(kept') clean, 1 - kept'), and noisy ~ N(sqrt(1 - beta) before, beta)
    beta, kept = BETAS[time], KEPT[time - 1]
    precision = 1 / (1 - kept) + (1 - beta) / beta
    posterior = [
        (math.sqrt(kept) * image / (1 - kept) + math.sqrt(1 - beta) * noisy / beta) / precision
        for image in (clean, (noisy - math.sqrt(1 - KEPT[time]) * output[:, :2]) / math.sqrt(KEPT[time]))
    ]
    share = (output[:, 2:] + 1) / 2
    log_variance = share * math.log(beta) + (1 - share) * math.log(1 / precision)
    divergence = distributions.kl_divergence(
        distributions.Normal(posterior[0], precision**-0.5),
        distributions.Normal(posterior[1], (0.5 * log_variance).exp()),
    )
    simple = float((output[:, :2] - noise).square().mean())
    assert value == pytest.approx(simple + float(divergence.mean()) / math.log(2), rel=1e-9)


def test_the_first_step_costs_the_surprise_at_the_level_of_each_number():
    clean = torch.tensor([[[[-1.4, -1.0, -0.3], [0.0, 0.7, 1.0], [1.2, 3.0, -4.0]]]], dtype=torch.float64)
    noise, output = drawn(1, 1, 3, 3, seed=1), drawn(1, 2, 3, 3, seed=2) / 3
    value, (noisy, _) = loss_of(clean, 0, noise, output)
    mean = (noisy - math.sqrt(1 - KEPT[0]) * output[:, :1]) / math.sqrt(KEPT[0])
    share = (output[:, 1:] + 1) / 2
    # step 0 has no variance: that of step 1 stands in
    least = BETAS[1] * (1 - KEPT[0]) / (1 - KEPT[1])
    deviation = (0.5 * (share * math.log(BETAS[0]) + (1 - share) * math.log(least))).exp()
    bits = []
    for number, centre, width in zip(*(part.flatten().tolist() for part in (clean, mean, deviation)), strict=True):
        low = -math.inf if number < -0.999 else number - 1 / 255
        high = math.inf if number > 0.999 else number + 1 / 255
        chance = 0.5 * (math.erf((high - centre) / width / 2**0.5) - math.erf((low - centre) / width / 2**0.5))
        bits.append(-math.log2(max(chance, 1e-12)))
    simple = float((output[:, :1] - noise).square().mean())
    assert value == pytest.approx(simple + sum(bits) / 9, rel=1e-6)


def test_who_knows_the_noise_and_the_posterior_pays_nothing():
    noise = drawn(4, 2, 3, 3)
    output = torch.cat([noise, torch.full_like(noise, -1.0)], dim=1)
    value = NoiseLoss(BETAS)(lambda *_: output, drawn(4, 2, 3, 3, seed=1), torch.tensor([1, 30, 600, 999]), noise)
    torch.testing.assert_close(value, torch.zeros_like(value), rtol=0, atol=1e-10)


def test_only_the_variance_learns_from_the_bound():
    output = (drawn(2, 4, 3, 3) / 3).requires_grad_()
    noise, times = drawn(2, 2, 3, 3, seed=1), torch.tensor([5, 700])
    NoiseLoss(BETAS)(lambda *_: output, drawn(2, 2, 3, 3, seed=2), times, noise).sum().backward()
    of_simple = 2 * (output.detach()[:, :2] - noise) / 18
    torch.testing.assert_close(output.grad[:, :2], of_simple)
    assert (output.grad[:, 2:] != 0).all()


@settings(max_examples=20)
@given(seed=st.integers(0, 2**16), time=st.integers(1, 999))
def test_the_bound_and_the_sampler_mean_the_same_variance(seed, time):
    """The divergence of the sampler's own Gaussian from the posterior, where the network knows the noise."""
    noise, place = drawn(1, 1, 2, 2, seed=seed), drawn(1, 1, 2, 2, seed=seed + 1)
    clean, times = drawn(1, 1, 2, 2, seed=seed + 2), torch.tensor([time])
    of = NoiseLoss(BETAS)
    output, noisy = torch.cat([noise, place], dim=1), of.noisy(clean, times, noise)
    mean, log_variance = SAMPLER.before(output, noisy, time)
    true, least = SAMPLER.before(torch.cat([noise, torch.full_like(place, -1.0)], dim=1), noisy, time)
    torch.testing.assert_close(mean, true)
    ratio = least - log_variance
    expected = 0.5 * (ratio.exp() - ratio - 1).mean() / math.log(2)
    torch.testing.assert_close(of.bound(clean, noisy, times, noise, place), expected[None], rtol=1e-6, atol=1e-12)


def test_images_of_a_batch_cost_what_they_cost_alone():
    module = with_drawn_weights(
        DIT.build(None, input_size=4, hidden_size=16, depth=1, num_heads=2, num_classes=3, in_channels=2)
    )
    of, labels = NoiseLoss(BETAS), torch.tensor([0, 3, 1])
    clean, noise, times = drawn(3, 2, 4, 4), drawn(3, 2, 4, 4, seed=1), torch.tensor([0, 12, 900])
    together = of(lambda x, steps: module(x, steps, labels), clean, times, noise)
    for place in range(3):
        own = slice(place, place + 1)
        alone = of(lambda x, steps, own=own: module(x, steps, labels[own]), clean[own], times[own], noise[own])
        torch.testing.assert_close(alone, together[own])
