"""The logic of timing, on times that are known: a clock that only the contenders move."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokenmark.measures import throughput
from tokenmark.measures.throughput import Timed, Timing, measure

IMAGES = torch.zeros(4, 3, 2, 2)


class Clock:
    """Stands in for `time`: it moves when a contender says so."""

    def __init__(self):
        self.now = 100.0
        self.calls = []

    def perf_counter(self):
        return self.now

    def contender(self, name, seconds):
        """A call that takes `seconds`, a number or an iterator of them, and is noted."""

        def call(images):
            assert images is IMAGES
            self.calls.append(name)
            self.now += next(seconds) if hasattr(seconds, "__next__") else seconds
            return images

        return call


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(throughput, "time", clock)
    return clock


COLD = Timing(min_seconds=0.001, min_rounds=6, warm_seconds=0.0, max_warm_seconds=0.0)
"""Without a warm-up, so that every call is a timed one."""


def test_contenders_take_turns_in_an_order_drawn_per_round(clock):
    timed = measure({name: clock.contender(name, 1.0) for name in "abc"}, IMAGES, COLD)
    rounds = ["".join(clock.calls[at : at + 3]) for at in range(0, len(clock.calls), 3)]
    assert [sorted(turns) for turns in rounds] == [["a", "b", "c"]] * 6
    assert len(set(rounds)) > 2
    assert {name: len(times) for name, times in timed.seconds.items()} == {"a": 6, "b": 6, "c": 6}
    assert timed.batch == 4


def test_times_are_those_of_the_calls(clock):
    costs = {"a": iter([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), "b": 0.5}
    timed = measure({name: clock.contender(name, cost) for name, cost in costs.items()}, IMAGES, COLD)
    assert timed.seconds["a"].tolist() == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert timed.seconds["b"].tolist() == [0.5] * 6
    assert timed.images_per_second("a") == pytest.approx(4 / 3.5)
    assert timed.speedup("b", "a")[0] == pytest.approx(7.0)


@pytest.mark.parametrize(("seconds", "rounds", "expected"), [(10.0, 6, 40), (1.0, 6, 6), (0.001, 2, 2)])
def test_goes_on_until_both_the_time_and_the_count_are_reached(clock, seconds, rounds, expected):
    """The time must be reached by the quickest contender: 0.25 s a call here."""
    timing = dataclasses.replace(COLD, min_seconds=seconds, min_rounds=rounds)
    timed = measure({"quick": clock.contender("quick", 0.25), "slow": clock.contender("slow", 1.0)}, IMAGES, timing)
    assert len(timed.seconds["quick"]) == len(timed.seconds["slow"]) == expected


def test_the_warm_up_waits_for_steady_times_and_is_not_counted(clock):
    def settling():
        yield from np.linspace(2.0, 0.5, 30)
        while True:
            yield 0.5

    timing = Timing(min_seconds=0.001, min_rounds=5, warm_seconds=1.0, max_warm_seconds=1000.0)
    timed = measure({"a": clock.contender("a", settling())}, IMAGES, timing)
    assert timed.steady
    assert timed.seconds["a"].tolist() == [0.5] * 5
    assert len(clock.calls) > 30


def test_a_warm_up_that_never_settles_says_so(clock):
    def restless():
        slow = 0
        while True:
            slow += 1
            yield 1.0 if (slow - 1) // 3 % 2 else 2.0  # every window of three is unlike the last

    contenders = {"steady": clock.contender("steady", 0.1), "restless": clock.contender("restless", restless())}
    assert not measure(contenders, IMAGES, Timing(min_seconds=0.1, min_rounds=2, max_warm_seconds=60.0)).steady
    assert measure({"steady": clock.contender("steady", 0.1)}, IMAGES, Timing(min_seconds=0.1, min_rounds=2)).steady


def test_quantiles_and_rate():
    timed = Timed(8, {"a": np.arange(1.0, 102.0) / 1000}, steady=True)
    assert [timed.quantile_ms("a", q) for q in (0.5, 0.9, 0.99)] == pytest.approx([51.0, 91.0, 100.0])
    assert timed.images_per_second("a") == pytest.approx(8 / 0.051)
    low, high = timed.spread("a")
    assert low < timed.images_per_second("a") < high


@given(st.lists(st.floats(0.001, 10), min_size=2, max_size=60), st.floats(0.05, 20))
def test_a_machine_that_slows_all_down_leaves_the_ratio_exact(times, factor):
    """Rounds are resampled whole: where both contenders share every slowness, nothing is in doubt."""
    seconds = {"method": np.asarray(times), "base": np.asarray(times) * factor}
    ratio, (low, high) = Timed(1, seconds, steady=True).speedup("method", "base")
    assert (ratio, low, high) == pytest.approx((factor, factor, factor))
    inverse, _ = Timed(1, seconds, steady=True).speedup("base", "method")
    assert inverse == pytest.approx(1 / factor)


def test_the_interval_holds_the_true_ratio():
    """Over 200 made machines with noise of their own, a 95 % interval must miss rarely, and not by being wide."""
    rng = np.random.default_rng(0)
    held, widths = [], []
    for _ in range(200):
        slow = rng.lognormal(0, 0.3, 40)  # shared by the round
        method, base = (rng.lognormal(0, 0.05, 40) * slow * scale for scale in (1.0, 2.0))
        _, (low, high) = Timed(1, {"m": method, "b": base}, steady=True).speedup("m", "b")
        held.append(low <= 2.0 <= high)
        widths.append(high - low)
    assert np.mean(held) >= 0.9
    assert np.median(widths) < 0.4


def test_the_interval_is_the_same_every_time():
    timed = Timed(1, {"m": np.random.default_rng(0).random(30), "b": np.random.default_rng(1).random(30)}, steady=True)
    assert timed.speedup("m", "b") == timed.speedup("m", "b")
    assert timed.spread("m") == timed.spread("m")


def test_real_calls_are_timed_on_the_given_images():
    timed = measure({"a": lambda x: x + 1, "b": lambda x: x * 2}, IMAGES, dataclasses.replace(COLD, min_rounds=3))
    assert all((times > 0).all() for times in timed.seconds.values())
