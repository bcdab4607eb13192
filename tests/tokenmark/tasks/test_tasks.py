"""The tasks: what does not depend on how a run is cut into batches, and what the measures are shown."""

import numpy as np
import pytest
import torch

from tests.tokenmark import make
from tokenmark import build
from tokenmark.contracts import Preset
from tokenmark.measures.accuracy import Accuracy
from tokenmark.measures.base import PerImage
from tokenmark.tasks import TASKS
from tokenmark.tasks.asked import noise_of
from tokenmark.tasks.base import computed, gathered, scatter

SAY = str


def numbers(outcome):
    return {value.name: value.value for value in outcome.values}


def run(spec, context, batch):
    session = TASKS[spec.task].open(spec, context)
    for start in range(0, session.total, batch):
        session.step(start, min(start + batch, session.total))
    return session.finish(SAY)


def test_states_of_measures_with_alike_names_do_not_mix():
    class Counted(PerImage):
        def state(self):
            return {"values": self.all(), "a/b": self.all()}

        def load(self, state):
            assert set(state) == {"values", "a/b"}
            self.replace(state["values"])

    one = {"a": Counted(), "ab": Counted()}
    for place, measure in enumerate(one.values()):
        measure.add(np.full(3, float(place)))
    other = {name: Counted() for name in one}
    scatter(other, gathered(one))
    assert [measure.all().tolist() for measure in other.values()] == [[0.0] * 3, [1.0] * 3]


def test_computed_keeps_the_order():
    measures = [Accuracy("one"), Accuracy("two")]
    for measure in measures:
        measure.update(np.array([True]))
    assert [value.name for value in computed(measures)] == ["one", "two"]


def test_every_task_measures_what_it_lists():
    assert list(TASKS) == ["reconstruction", "generation", "classification", "tokenization", "sampling", "structure"]
    assert all(task.measures and task.name == name for name, task in TASKS.items())


def test_noise_is_of_the_seed_and_the_sample_alone():
    def draw(seed, index):
        return torch.rand(4, generator=noise_of(seed, index))

    assert torch.equal(draw(3, 7), draw(3, 7))
    seeds = (0, 1, 2, 1000, 2**31, 2**32 - 1)  # as many as a suite may name
    drawn = torch.stack([draw(seed, index) for seed in seeds for index in range(40)])
    assert len(torch.unique(drawn, dim=0)) == 40 * len(seeds)


def test_noise_of_neighbours_is_unlike():
    """Seeds that follow one another must not give samples that do."""
    drawn = torch.stack([torch.randn(4000, generator=noise_of(0, index)) for index in range(20)])
    assert torch.corrcoef(drawn).fill_diagonal_(0).abs().max() < 0.08


RECONSTRUCTION = {"measures": ("rfid", "psnr", "ssim", "rate"), "samples": 23}


def test_reconstruction_does_not_depend_on_batches(context):
    spec = make.spec(**RECONSTRUCTION)
    one, other = run(spec, context, 23), run(spec, context, 5)
    # the feature network's own rounding moves with its batch
    assert numbers(one) == pytest.approx(numbers(other), rel=1e-4)
    assert {value.n for value in one.values} == {23}
    assert one.pictures["reconstructions"] == other.pictures["reconstructions"]


def test_a_better_code_is_measured_as_better(context):
    rough, fine = (numbers(run(make.spec(variant=q, **RECONSTRUCTION), context, 23)) for q in ("q10", "q95"))
    assert fine["rfid"] < rough["rfid"] / 2
    assert fine["psnr"] > rough["psnr"] + 5
    assert fine["ssim"] > rough["ssim"]
    assert fine["bits_per_pixel"] > rough["bits_per_pixel"]


def test_reconstruction_by_a_learned_code(context):
    spec = make.spec(method="maskgit-vq", variant="mini", measures=("psnr", "rate", "codebook"), samples=20)
    outcome = run(spec, context, 20)
    found = numbers(outcome)
    assert found["psnr"] > 20
    assert found["tokens_per_image"] == 64
    assert found["bits_per_pixel"] == pytest.approx(64 * 8 / 32**2)
    assert 0 < found["codebook_use"] <= 1
    assert outcome.details["codebook_sizes"] == [256]


CLASSIFICATION = {
    "task": "classification",
    "variant": None,
    "model": "vit-mini",
    "samples": 40,
    "measures": ("accuracy", "cost"),
}


def test_classification_without_reduction_is_the_model_itself(context):
    found = numbers(run(make.spec(method="none", **CLASSIFICATION), context, 40))
    assert (found["top1_difference"], found["top1_mcnemar_p"], found["macs_ratio"]) == (0.0, 1.0, 1.0)
    assert found["tokens_left"] == 65
    assert found["macs_counted"] == pytest.approx(found["macs"], rel=0.01)
    assert found["parameters"] == 345_370


def test_classification_of_a_reduced_model(context):
    outcome = run(make.spec(method="tome", settings={"r": 4}, **CLASSIFICATION), context, 17)
    found = numbers(outcome)
    assert found["tokens_left"] == 65 - 12 * 4
    assert found["macs_ratio"] < 0.75
    assert found["macs_counted"] == pytest.approx(found["macs"], rel=0.1)
    assert outcome.details["schedule"][0] == [65, 61]
    assert outcome.warnings == []


def test_classification_of_cost_alone_reads_no_image(context):
    session = TASKS["classification"].open(
        make.spec(**{**CLASSIFICATION, "method": "none", "measures": ("cost",)}), context
    )
    assert session.total == 0
    assert "macs" in numbers(session.finish(SAY))


class Shades:
    """A generator whose samples are a shade by class with a little noise of their own."""

    parameters_total = 3

    def __init__(self):
        self.labels = []

    def steps(self, settings):
        return 1

    def sample(self, labels, generators, settings, prompts=None):
        assert settings == "settings"
        self.labels += labels.tolist()
        noise = torch.stack([torch.rand(3, 32, 32, generator=generator) for generator in generators])
        return labels.view(-1, 1, 1, 1) / 10 + 0.1 * noise


def test_generation_samples_each_class_alike_whatever_the_batches(context, monkeypatch):
    maker = Shades()
    preset = Preset(settings="settings", variants=("x",), printed="nowhere", world_size=8)
    monkeypatch.setattr(build, "generator", lambda *_: (maker, preset))
    facts = {
        "task": "generation",
        "method": "titok-maskgit",
        "variant": "x",
        "settings": {"preset": "p"},
        "measures": ("gfid", "class-accuracy"),
    }
    spec = make.spec(samples=40, **facts)
    outcome = run(spec, context, 40)
    assert maker.labels[:40] == list(range(10)) * 4
    assert numbers(run(spec, context, 7)) == pytest.approx(numbers(outcome), rel=1e-4)
    assert set(numbers(outcome)) == {"gfid", "class_accuracy"}, "40 samples say nothing of more"
    assert outcome.details == {
        "parameters": 3,
        "classes": 10,
        "class_order": "cycled",
        "noise": "of the seed and the sample's index",
        "published": {"printed": "nowhere", "world_size": 8},
    }
    assert numbers(run(make.spec(samples=40, seed=1, **facts), context, 40))["gfid"] != numbers(outcome)["gfid"]
    assert isinstance(outcome.pictures["samples"][0], bytes)


def test_a_reduced_sampler_is_compared_with_itself_unreduced(context):
    """From the same noise: nothing merged is the same image, and merging is cheaper and moves it."""
    facts = {
        "task": "generation",
        "method": "dit",
        "variant": "mini",
        "samples": 4,
        "measures": ("psnr", "ssim", "cost"),
    }
    settings = {"preset": "dit-mini", "reducer": "tomesd"}
    same, merged = (
        numbers(run(make.spec(settings={**settings, "ratio": ratio}, **facts), context, 4)) for ratio in (0.0, 0.5)
    )
    assert same["psnr"] == 100
    assert same["macs_ratio"] == 1
    assert merged["psnr"] < 60
    assert merged["macs_ratio"] < 1
    assert same["steps"] == merged["steps"] == 25
