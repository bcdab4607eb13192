"""Energy by a made NVML, whose device and clock move only when a call says so."""

import sys
import types

import pytest
import torch

from tokenmark.measures import energy

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
IMAGES = torch.zeros(2, 3, 2, 2)


class MadeNvml(types.ModuleType):
    """Stands in for `pynvml` and for `time`: each call of `work` takes its seconds at its watts."""

    class NVMLError(Exception):
        """What NVML raises."""

    def __init__(self, counts=True, known="GPU-uuid-1", idle=30.0):
        super().__init__("pynvml")
        self.counts, self.known, self.watts = counts, known, idle
        self.now, self.joules, self.calls = 50.0, 1000.0, 0

    def nvmlInit(self):  # noqa: N802
        if self.known is None:
            raise self.NVMLError("Driver Not Loaded")

    def nvmlDeviceGetHandleByUUID(self, uuid):  # noqa: N802
        if uuid != self.known:
            raise self.NVMLError("Not Found")
        return "handle"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):  # noqa: N802
        assert handle == "handle"
        if not self.counts:
            raise self.NVMLError("Not Supported")
        return round(self.joules * 1000)

    def nvmlDeviceGetPowerUsage(self, handle):  # noqa: N802
        assert handle == "handle"
        return round(self.watts * 1000)

    def perf_counter(self):
        return self.now

    def work(self, seconds, watts):
        def call(images):
            assert images is IMAGES
            self.calls += 1
            self.watts = watts
            self.now += seconds
            self.joules += seconds * watts
            return images

        return call


@pytest.fixture
def made(monkeypatch):
    def put(**facts):
        nvml = MadeNvml(**facts)
        monkeypatch.setitem(sys.modules, "pynvml", nvml)
        monkeypatch.setattr(energy, "time", nvml)
        properties = types.SimpleNamespace(uuid="uuid-1")
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
        return nvml

    return put


def test_the_counter_gives_the_joules_of_a_call(made):
    nvml = made()
    meter = energy.meter(CUDA)
    assert meter.counts
    assert meter.joules_per_call(nvml.work(0.25, 400.0), IMAGES, 5.0) == pytest.approx(100.0)
    assert nvml.calls == 20


def test_what_was_used_before_does_not_count(made):
    nvml = made()
    meter = energy.meter(CUDA)
    first = meter.joules_per_call(nvml.work(0.5, 100.0), IMAGES, 3.0)
    nvml.joules += 5000.0
    assert (first, meter.joules_per_call(nvml.work(0.5, 300.0), IMAGES, 3.0)) == pytest.approx((50.0, 150.0))


def test_without_a_counter_power_is_sampled(made):
    """Trapezoids: all calls at 400 W but for the first step up from 30 W."""
    nvml = made(counts=False)
    meter = energy.meter(CUDA)
    assert not meter.counts
    expected = (9 * 400.0 + (30.0 + 400.0) / 2) * 0.25 / 10
    assert meter.joules_per_call(nvml.work(0.25, 400.0), IMAGES, 2.5) == pytest.approx(expected)


def test_it_goes_on_long_enough_for_the_counter_to_move(made):
    nvml = made()
    energy.meter(CUDA).joules_per_call(nvml.work(0.25, 100.0), IMAGES, 0.001)
    assert nvml.calls == energy.SHORTEST / 0.25


def test_no_meter_where_there_is_nothing_to_read(made, monkeypatch):
    made()
    assert energy.meter(CPU) is None
    made(known=None)
    assert energy.meter(CUDA) is None
    made(known="GPU-another")
    assert energy.meter(CUDA) is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert energy.meter(CUDA) is None


def test_a_device_that_tells_neither_energy_nor_power_has_no_meter(made, monkeypatch):
    nvml = made(counts=False)

    def refuse(handle):
        raise nvml.NVMLError("Not Supported")

    monkeypatch.setattr(nvml, "nvmlDeviceGetPowerUsage", refuse)
    assert energy.meter(CUDA) is None


def test_the_real_library_has_what_is_called_here():
    nvml = pytest.importorskip("pynvml")
    for name in ("nvmlInit", "nvmlDeviceGetHandleByUUID", "nvmlDeviceGetTotalEnergyConsumption", "NVMLError"):
        assert hasattr(nvml, name)
    assert hasattr(nvml, "nvmlDeviceGetPowerUsage")
