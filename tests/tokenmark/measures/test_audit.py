"""The audit, on contenders that are honest and on such as cheat in every way that it is meant to find."""

import pytest
import torch

from tokenmark.errors import AuditError
from tokenmark.measures import throughput
from tokenmark.measures.audit import TOLERANCES, Contender, Tolerance, check, check_timed, differences
from tokenmark.measures.throughput import Timing

TOLERANCE = TOLERANCES[torch.float32]
WEIGHTS = torch.randn(3 * 4 * 4, 10, generator=torch.Generator().manual_seed(0))
QUICK = Timing(min_seconds=1e-9, min_rounds=3, warm_seconds=0.0, max_warm_seconds=0.0)


def honest(images):
    return images.flatten(1) @ WEIGHTS


def pixels(batch=20):
    return torch.rand(batch, 3, 4, 4, generator=torch.Generator().manual_seed(1))


def audited(call, images, reference=honest):
    """The whole way: check, time, check again."""
    contenders = {"method": Contender(call, reference), "fused": Contender(honest, "method")}
    before = check(contenders, images, TOLERANCE)
    timed = throughput.measure({name: each.call for name, each in contenders.items()}, images, QUICK)
    return check_timed(contenders, images, timed.outputs, before, TOLERANCE)


@pytest.mark.parametrize("batch", [1, 2, 20])
def test_an_honest_contender_passes_and_its_images_are_left_as_they_were(batch):
    images = pixels(batch)
    assert audited(honest, images) == {"method": 0.0, "fused": 0.0}
    assert torch.equal(images, pixels(batch))


def test_noise_within_the_tolerance_passes_and_is_told():
    def rough(images):
        return honest(images) * (1 + 5e-4)

    contenders = {"method": Contender(rough, honest)}
    before = check(contenders, pixels(), TOLERANCE)
    worst = check_timed(contenders, pixels(), {"method": honest(pixels())}, before, TOLERANCE)
    assert worst["method"] == pytest.approx(5e-4, rel=1e-3)


@pytest.mark.parametrize("batch", [1, 20])
def test_a_contender_that_computes_something_else_is_named_with_the_difference(batch):
    with pytest.raises(AuditError, match=r"'method' does not give what a fresh, untimed call .* differ by 0\.1 "):
        audited(lambda images: honest(images) * 1.1, pixels(batch))


def test_a_baseline_that_disagrees_is_named_with_the_other():
    contenders = {"fused": Contender(honest, "eager"), "eager": Contender(lambda images: -honest(images), "fused")}
    with pytest.raises(AuditError, match=r"'fused' does not give what eager gives: .* differ by 2 "):
        check(contenders, pixels(), TOLERANCE)


def cached(key):
    """A contender that computes once per key, and answers from memory afterwards."""
    memory = {}

    def call(images):
        if key(images) not in memory:
            memory[key(images)] = honest(images)
        return memory[key(images)]

    return call


@pytest.mark.parametrize("key", [lambda x: x.data_ptr(), id, lambda x: x.shape, lambda x: x[0, 0, 0, 0].item() > 2])
@pytest.mark.parametrize("batch", [1, 20])
def test_a_contender_that_remembers_its_answer_is_found(key, batch):
    with pytest.raises(AuditError, match="'method' does not give what a fresh, untimed call"):
        audited(cached(key), pixels(batch))


@pytest.mark.parametrize("calls", [1, 3])
def test_a_contender_that_is_honest_only_while_it_is_checked_is_found(calls):
    made = []

    def cheat(images):
        made.append(1)
        return honest(images) if len(made) <= calls else torch.zeros(len(images), 10)

    with pytest.raises(AuditError, match="'method' does not give in a timed call what it gave before timing"):
        audited(cheat, pixels())


def test_pixels_come_back_even_if_the_check_fails():
    images = pixels()
    with pytest.raises(AuditError):
        audited(cached(id), images)
    assert torch.equal(images, pixels())


def test_one_image_in_ten_may_be_further_off_but_not_at_will():
    def moved(share, count):
        def call(images):
            factors = torch.ones(len(images), 1)
            factors[:count] += share
            return honest(images) * factors

        return {"method": Contender(call, honest)}

    check(moved(0.04, 2), pixels(20), TOLERANCE)
    for share, count in ((0.04, 3), (0.06, 1)):
        with pytest.raises(AuditError):
            check(moved(share, count), pixels(20), TOLERANCE)


def test_differences_are_a_share_of_each_image_of_its_own():
    expected = torch.tensor([[3.0, 4.0], [300.0, 400.0], [0.0, 0.0], [1.0, 0.0]])
    output = torch.tensor([[3.0, 4.5], [300.0, 400.5], [0.0, 0.0], [float("nan"), 0.0]])
    assert differences(output, expected).tolist() == pytest.approx([0.1, 0.001, 0.0, float("inf")])
    assert differences(torch.ones(1, 2), torch.zeros(1, 2)).tolist() == [float("inf")]


def test_other_shapes_are_told():
    contenders = {"method": Contender(lambda images: honest(images)[:, :5], honest)}
    with pytest.raises(AuditError, match=r"scores of shape \(20, 5\) for \(20, 10\)"):
        check(contenders, pixels(), TOLERANCE)


def test_a_coarser_type_allows_more():
    coarse = TOLERANCES[torch.bfloat16]
    assert coarse.most > TOLERANCE.most
    contenders = {"method": Contender(lambda images: honest(images.bfloat16().float()), honest)}
    check(contenders, pixels(), coarse)
    with pytest.raises(AuditError):
        check(contenders, pixels(), Tolerance(1e-6, 1e-6))
