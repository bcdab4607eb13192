"""Intervals over rounds: how often they hold the truth, on made times whose truth is known."""

import numpy as np
import pytest

from tokenmark.measures import bootstrap
from tokenmark.measures.throughput import Timed

ROUNDS = 64
MACHINES = 200


def drifting(rng, rounds, memory):
    """Noise whose every value keeps the share `memory` of the one before; its spread is the same for any memory."""
    noise = np.empty(rounds)
    noise[0] = rng.normal()
    for at in range(1, rounds):
        noise[at] = memory * noise[at - 1] + (1 - memory**2) ** 0.5 * rng.normal()
    return noise


def coverage(memory, rounds=ROUNDS, truth=1.0):
    """Share of machines on which the interval of a ratio holds the true one."""
    rng = np.random.default_rng(7)
    held = 0
    for _ in range(MACHINES):
        shared = np.cumsum(rng.normal(0, 0.02, rounds))  # a slowness of the machine, which every contender feels
        method, base = (np.exp(shared + 0.05 * drifting(rng, rounds, memory)) for _ in range(2))
        timed = Timed(1, {"method": method, "base": truth * base}, steady=True)
        _, (low, high) = timed.speedup("method", "base")
        held += low <= truth <= high
    return held / MACHINES


@pytest.mark.parametrize(("rounds", "truth"), [(24, 1.0), (64, 1.0), (24, 1.7)])
def test_independent_noise_is_covered_as_promised(rounds, truth):
    """A contender against itself above all: its interval must hold 1 in about 95 of 100 runs."""
    assert 0.92 <= coverage(0.0, rounds, truth) <= 0.995


def test_noise_that_lasts_is_covered_as_documented():
    """docs/throughput.md states these; resampling single rounds gives 0.79 and 0.52."""
    assert 0.88 <= coverage(0.6) <= 0.97
    assert 0.70 <= coverage(0.9) <= 0.85


def test_rounds_are_stretches_of_neighbours():
    drawn = bootstrap.rounds(100)
    assert drawn.shape == (bootstrap.RESAMPLES, 100)
    assert (drawn.min(), drawn.max()) == (0, 99)
    steps = np.diff(drawn.reshape(-1, 10), axis=1) % 100
    assert (steps == 1).all()
    assert len(np.unique(drawn[:, ::10])) == 100
    # every round is drawn as often as any other, the first and the last too
    counts = np.bincount(drawn.ravel())
    assert counts.max() / counts.min() < 1.2


@pytest.mark.parametrize("n", [1, 2, 3, 5, 24])
def test_few_rounds(n):
    assert bootstrap.rounds(n).shape == (bootstrap.RESAMPLES, n)
    assert bootstrap.interval(n, lambda drawn: drawn.max(axis=1) * 0.0 + 3.0) == (3.0, 3.0)
