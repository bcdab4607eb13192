"""What a reader is warned of before the numbers."""

import pytest

from tests.tokenmark import make
from tokenmark.claims.judged import VERDICTS
from tokenmark.leaderboard import badges


def texts(record, **shown):
    return [badge.text for badge in badges.of_record(record, **shown)]


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, ["mini"]),
        ({"samples": 100}, ["mini", "subset: 100 of 500"]),
        ({"samples": 1000}, ["mini", "more images: 1,000 of 500"]),
        ({"samples": 0}, ["mini"]),
        ({"protocol": "throughput", "samples": 0}, []),
        ({"protocol": "of-a-later-version", "samples": 5}, []),
        ({"protocol": "titok-val50k", "samples": 1000}, ["subset: 1,000 of 50,000"]),
        ({"details": {"weights": "random, drawn from seed 0"}}, ["mini", "random weights"]),
    ],
)
def test_badges_of_a_record(changes, wanted):
    assert texts(make.record(**changes)) == wanted


def test_device_and_standing_where_they_are_asked_for():
    assert texts(make.record(), device=True, standing=False) == ["superseded", "mini", "cpu"]
    gpu = make.record(environ=make.environment(device="cuda", device_name="NVIDIA Made"), device="cuda: NVIDIA Made")
    assert texts(gpu, device=True) == ["mini", "NVIDIA Made"]


def test_verdicts_are_told_apart_without_colour():
    assert tuple(badges.VERDICT_BADGES) == VERDICTS
    assert len({badge.sign for badge in badges.VERDICT_BADGES.values()}) == len(VERDICTS)
    assert [badge.text for badge in badges.VERDICT_BADGES.values()] == list(VERDICTS)
