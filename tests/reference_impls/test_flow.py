"""Euler's method on flows that are known, and guidance at its edges."""

import torch

from reference_impls.layers.flow import AdaptiveProjectedGuidance, classifier_free, euler, uniform_times


def test_times_run_from_one_to_zero():
    assert uniform_times(4) == [1.0, 0.75, 0.5, 0.25, 0.0]


def test_a_straight_flow_arrives_in_any_number_of_steps():
    noise, data = torch.randn(2, 3), torch.randn(2, 3)
    for steps in (1, 7):
        arrived = euler(lambda _x, _time: noise - data, noise, uniform_times(steps))
        torch.testing.assert_close(arrived, data)


def test_steps_add_up_in_float32():
    start = torch.ones(1, 1, dtype=torch.bfloat16)
    arrived = euler(lambda x, _time: torch.full_like(x, 1e-3).bfloat16(), start, uniform_times(2))
    assert arrived.dtype == torch.float32
    torch.testing.assert_close(arrived, torch.tensor([[0.999]]), atol=1e-5, rtol=0)


def test_guidance_of_one_is_none():
    told, untold = torch.randn(2, 4), torch.randn(2, 4)
    torch.testing.assert_close(classifier_free(told, untold, 1.0), told)
    torch.testing.assert_close(AdaptiveProjectedGuidance(1.0)(told, untold), told)
    torch.testing.assert_close(classifier_free(told, untold, 0.0), untold)


def test_what_is_parallel_is_dropped():
    told = torch.tensor([[2.0, 0.0]])
    torch.testing.assert_close(AdaptiveProjectedGuidance(3.0)(told, torch.tensor([[1.0, 0.0]])), told)
    kept = AdaptiveProjectedGuidance(3.0, eta=1.0)(told, torch.tensor([[1.0, 0.0]]))
    torch.testing.assert_close(kept, torch.tensor([[4.0, 0.0]]))


def test_long_differences_are_shortened_per_image_and_remembered_whole():
    told = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    untold = told - torch.tensor([[0.0, 10.0], [0.0, 1.0]])
    guide = AdaptiveProjectedGuidance(2.0)
    torch.testing.assert_close(guide(told, untold), torch.tensor([[1.0, 2.5], [1.0, 1.0]]))
    # The second step's difference is 10 - 0.5 * 10, and 1 - 0.5 * 1.
    torch.testing.assert_close(guide(told, untold), torch.tensor([[1.0, 2.5], [1.0, 0.5]]))


def test_no_difference_is_no_number_problem():
    told = torch.zeros(1, 3)
    assert AdaptiveProjectedGuidance(7.5)(told, told).tolist() == [[0.0, 0.0, 0.0]]
