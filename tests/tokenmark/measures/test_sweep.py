"""The batch sweep: what fits is kept, what cheats stops it, and what the device tells is recorded."""

import json

import pytest
import torch

from tokenmark import memory
from tokenmark.errors import AuditError, TokenmarkError
from tokenmark.measures import audit
from tokenmark.measures.audit import Contender
from tokenmark.measures.sweep import sweep
from tokenmark.measures.throughput import Timing

TOLERANCE = audit.TOLERANCES[torch.float32]


def timing(*batches):
    return Timing(batches, min_seconds=1e-9, min_rounds=3, warm_seconds=0.0, max_warm_seconds=0.0)


def images_of(batch):
    return torch.rand(batch, 3, 2, 2, generator=torch.Generator().manual_seed(batch))


def honest(images):
    return images.flatten(1)


def limited(most, error):
    """A contender that holds no more than `most` images."""

    def call(images):
        if len(images) > most:
            raise error
        return honest(images)

    return call


def contenders(call=honest):
    return {"method": Contender(call, honest), "eager": Contender(honest, "fused"), "fused": Contender(honest, "eager")}


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory. Tried"), RuntimeError("DefaultCPUAllocator: can't allocate memory")],
)
def test_a_batch_that_does_not_fit_ends_the_sweep_at_the_last_that_did(error):
    found = sweep(contenders(limited(8, error)), images_of, timing(32, 1, 8, 16), TOLERANCE)
    assert [point.timed.batch for point in found.points] == [1, 8]
    assert "batch 16 does not fit into memory: the sweep ends at batch 8" in found.warnings
    assert not any("batch 32" in warning for warning in found.warnings)


def test_memory_that_runs_out_in_the_images_themselves():
    def made(batch):
        if batch > 2:
            raise torch.OutOfMemoryError
        return images_of(batch)

    assert [point.timed.batch for point in sweep(contenders(), made, timing(1, 2, 4), TOLERANCE).points] == [1, 2]


def test_nothing_fits():
    call = limited(0, torch.OutOfMemoryError("CUDA out of memory. Tried\nmore lines"))
    with pytest.raises(TokenmarkError, match="batch 4 does not fit into memory: give smaller batches") as caught:
        sweep(contenders(call), images_of, timing(4, 8), TOLERANCE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [RuntimeError("shapes cannot be multiplied"), AuditError("cheats")])
def test_another_error_is_no_lack_of_memory(error):
    with pytest.raises(type(error), match=str(error)):
        sweep(contenders(limited(1, error)), images_of, timing(1, 2), TOLERANCE)


def test_every_batch_is_audited():
    def cheat(images):
        return honest(images) * (2.0 if len(images) == 8 else 1.0)

    with pytest.raises(AuditError, match="'method'"):
        sweep(contenders(cheat), images_of, timing(1, 8), TOLERANCE)


def test_the_best_batch_is_each_contenders_own():
    found = sweep(contenders(), images_of, timing(1, 8), TOLERANCE)
    for name in ("method", "fused"):
        rates = [point.timed.images_per_second(name) for point in found.points]
        assert found.best(name).timed.images_per_second(name) == max(rates)


class MadeMeter:
    """12 joules a call, whatever is called."""

    def joules_per_call(self, call, images, seconds):
        assert seconds == 1e-9
        return 12.0


def test_what_the_device_tells_is_in_the_record(monkeypatch):
    monkeypatch.setattr(memory, "of_call", lambda device, call: 1000 * len(call()))
    found = sweep(contenders(), images_of, timing(4), TOLERANCE, meter=MadeMeter(), opaque=frozenset({"fused"}))
    facts = json.loads(json.dumps(found.points[0].to_json()))
    assert facts["call_memory_bytes"] == {"method": 4000, "eager": 4000, "fused": 4000}
    assert facts["joules_per_image"] == {"method": 3.0, "eager": 3.0, "fused": 3.0}
    assert facts["attention"] == {"method": {}, "eager": {}}
    assert facts["audit_difference"] == {"method": 0.0, "eager": 0.0, "fused": 0.0}
    assert (facts["batch"], facts["rounds"]) == (4, 3)


def test_a_processor_tells_neither_memory_nor_energy():
    facts = sweep(contenders(), images_of, timing(2), TOLERANCE).points[0].to_json()
    assert not {"call_memory_bytes", "joules_per_image"} & set(facts)


def test_an_unsteady_warm_up_is_said():
    assert sweep(contenders(), images_of, timing(2), TOLERANCE).warnings == [
        "batch 2: the warm-up ended before times were steady"
    ]
