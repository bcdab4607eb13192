"""Mixtures of Gaussians: their densities are torch's, and the bound that is trained is one."""

from dataclasses import replace

import pytest
import torch

from reference_impls.layers.mixture_head import MixtureHead


def mixture_of(head, features):
    with torch.no_grad():
        return head(features)


@pytest.fixture(scope="module")
def head():
    torch.manual_seed(0)
    return MixtureHead(6, 4, 2, 3).double()


def test_densities_are_those_of_gaussians(head):
    mixture = mixture_of(head, torch.randn(2, 5, 6).double())
    z = torch.randn(2, 5, 3).double()
    with torch.no_grad():
        scale, expected = mixture.log_scale.exp(), []
        for component in range(4):
            mean = head.mean_of(mixture, torch.full((2, 5), component))
            by_hand = mixture.factors @ head.bases[component].T + head.centres[component]
            torch.testing.assert_close(mean, by_hand)
            expected.append(torch.distributions.Normal(mixture.shift + scale * mean, scale).log_prob(z).sum(-1))
        densities = torch.stack(expected, dim=-1)
        torch.testing.assert_close(head.log_densities(mixture, z), densities)
        weights = torch.distributions.Categorical(logits=mixture.logits)
        whole = -(densities + weights.logits).logsumexp(-1)
        torch.testing.assert_close(head.negative_log_likelihood(mixture, z), whole)


def test_the_bound_is_one_and_tight_where_components_are_equally_likely(head):
    mixture, z = mixture_of(head, 3 * torch.randn(50, 5, 6).double()), 2 * torch.randn(50, 5, 3).double()
    with torch.no_grad():
        slack = head.bound(mixture, z) - head.negative_log_likelihood(mixture, z)
        assert float(slack.min()) > -1e-10
        assert float(slack.max()) > 0.1
        even = replace(mixture, logits=torch.zeros_like(mixture.logits))
        torch.testing.assert_close(head.bound(even, z), head.negative_log_likelihood(even, z))


def test_scales_are_held(head):
    mixture = mixture_of(head, 1e6 * torch.randn(1, 5, 6).double())
    assert float(mixture.log_scale.abs().max()) <= 7.0
