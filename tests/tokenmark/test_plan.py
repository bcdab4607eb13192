"""From a suite to runs: names are checked before anything, and a missing file harms only who reads it."""

import shutil

import pytest
import torch

from tests.tokenmark import make
from tokenmark import backbones, jobs, plan, protocols, registry, suites
from tokenmark.contracts import TokenizerMethod
from tokenmark.data import catalog
from tokenmark.errors import DataError, SuiteError, TokenmarkError, UnknownNameError, WeightsError
from tokenmark.tasks.base import Context

JPEG = {"task": "reconstruction", "method": "jpeg", "variant": "q50", "measures": ["rfid", "rate"]}
LENGTHS = {"task": "reconstruction", "method": "one-d-piece", "variant": "mini-16", "tokens": [1, 4]}
SAMPLES = {"task": "generation", "method": "titok-maskgit", "variant": "mini-16", "preset": "mini", "samples": 90}
TOME = {"task": "classification", "method": "tome", "model": "vit-mini", "settings": {"r": 4}}


def suite(*jobs, **changes):
    timing = {"batches": [1, 8], "min_seconds": 0.5, "min_rounds": 3}
    facts = {"version": 1, "title": "Made", "protocol": "mini", "batch_size": 50, "timing": timing, "jobs": list(jobs)}
    return suites.Suite.model_validate({**facts, **changes})


@pytest.fixture
def weights_folder(tmp_path, monkeypatch):
    """Stand-ins for the bundled weights of every name that the jobs here need, free to be harmed."""
    folder = tmp_path / "packages"
    for package, names in {
        "tokenmark": ("mini-features", "vit-mini"),
        "reference_impls": (
            "one-d-piece-mini-16",
            "titok-mini-16",
            "titok-maskgit-mini-16",
            "maskgit-vq-mini",
            "dit-mini",
            "mar-vae-mini",
        ),
    }.items():
        place = folder / package / "weights"
        place.mkdir(parents=True)
        for name in names:
            (place / f"{name}.safetensors").write_bytes(name.encode())
            (place / f"{name}.toml").write_text(f'sha256 = "{make.digest(name)}"\n')
    monkeypatch.setattr(registry, "package_folder", lambda package: folder / package)
    return folder


def planned(context, *jobs, only=(), **changes):
    return plan.plan(suite(*jobs, **changes), "made", context, "site-made", only=only)


def test_every_field_of_a_reconstruction(context, weights_folder):
    (item,) = planned(context, JPEG, seed=3)
    spec = item.spec
    protocol = protocols.get("mini")
    assert item.problem is None
    assert item.title == spec.title == "jpeg/q50"
    assert (spec.suite, spec.task, spec.method, spec.variant) == ("made", "reconstruction", "jpeg", "q50")
    assert spec.implementation == registry.implementation("jpeg")
    assert spec.weights == {"mini-features": make.digest("mini-features")}
    assert spec.data == {"digits-32/val": catalog.load("digits-32", "val", context.data).manifest.sha256}
    assert (spec.protocol, spec.protocol_version, spec.protocol_sha256) == ("mini", protocol.version, protocol.sha256)
    assert (spec.measures, spec.timing) == (("rfid", "rate"), {})
    assert (spec.samples, spec.batch_size, spec.seed, spec.site) == (500, 50, 3, "site-made")
    assert spec.device.startswith("cpu: ")


def test_a_job_with_lengths_is_a_run_each(context, weights_folder):
    runs = planned(context, LENGTHS)
    assert [run.spec.tokens for run in runs] == [1, 4]
    assert len({run.spec.run for run in runs}) == 2
    assert all("one-d-piece-mini-16" in run.spec.weights for run in runs)


def test_a_generation_names_its_tokenizer_too(context, weights_folder):
    (item,) = planned(context, SAMPLES)
    assert set(item.spec.weights) == {"mini-features", "titok-mini-16", "titok-maskgit-mini-16"}
    assert set(item.spec.data) == {"digits-32/train"}
    assert (item.spec.samples, item.spec.settings) == (90, {"preset": "mini"})


def test_a_classification_holds_its_timing(context, weights_folder):
    (item,) = planned(context, {**TOME, "batch_size": 20})
    assert item.spec.weights == {"vit-mini": make.digest("vit-mini")}
    assert item.spec.timing["batches"] == [1, 8]
    assert (item.spec.timing["min_seconds"], item.spec.timing["min_rounds"]) == (0.5, 3)
    assert item.spec.batch_size == 20
    (without,) = planned(context, {**TOME, "measures": ["accuracy", "cost"]})
    assert without.spec.timing == {}
    slower = {"batches": [1, 8], "min_seconds": 0.6, "min_rounds": 3}
    assert planned(context, TOME, timing=slower)[0].spec.run != planned(context, TOME)[0].spec.run
    untimed = {**TOME, "measures": ["accuracy"]}
    assert planned(context, untimed, timing=slower)[0].spec.run == planned(context, untimed)[0].spec.run


def settings_of(context, settings):
    (item,) = planned(context, {**TOME, "settings": settings})
    return item.spec.settings


def test_settings_are_as_the_method_reads_them(context, weights_folder):
    assert settings_of(context, {}) == {}
    assert settings_of(context, {"r": 4}) == {"r": 4}
    assert (
        settings_of(context, {"inflection": -1}) == settings_of(context, {"inflection": -1.0}) == {"inflection": -1.0}
    )
    assert settings_of(context, {"per_block": [4, 2], "proportional": False}) == {
        "per_block": [4, 2],
        "proportional": False,
    }


def test_only_some_methods(context, weights_folder):
    assert [run.spec.method for run in planned(context, JPEG, TOME, LENGTHS, only=("one-d-piece", "jpeg"))] == [
        "jpeg",
        "one-d-piece",
        "one-d-piece",
    ]


@pytest.mark.parametrize(
    ("job", "message"),
    [
        ({**JPEG, "method": "jpge"}, "unknown method 'jpge': did you mean jpeg"),
        ({**JPEG, "variant": "q51"}, "unknown variant of jpeg 'q51'"),
        ({**SAMPLES, "preset": "minni"}, "unknown preset of titok-maskgit 'minni': did you mean mini"),
        ({**SAMPLES, "variant": "mini-17"}, "unknown variant of titok-maskgit"),
        ({**TOME, "model": "vit-minni"}, "unknown model 'vit-minni': did you mean vit-mini"),
        ({**TOME, "settings": {"keep": 1}}, "unknown setting of tome 'keep'"),
    ],
)
def test_a_wrong_name_stops_the_suite_before_it_begins(tmp_path, job, message):
    """Even the last job's: nothing is read or prepared before all names are known."""
    with pytest.raises(UnknownNameError, match=message):
        plan.plan(suite(JPEG, job), "made", Context(None, tmp_path / "data"), "site")
    assert not (tmp_path / "data").exists()


def test_a_method_of_another_kind_or_a_setting_of_another_type():
    with pytest.raises(Exception, match="'tome' is a reducer, but a tokenizer is needed here"):
        jobs.check_names(suite({**JPEG, "method": "tome"}))
    with pytest.raises(SuiteError, match=r"setting r of tome: .*integer.*got 'four'"):
        jobs.check_names(suite({**TOME, "settings": {"r": "four"}}))


@pytest.mark.parametrize(
    ("harmed", "failing"),
    [
        ("tokenmark/weights/vit-mini", {"tome"}),
        ("reference_impls/weights/titok-mini-16", {"titok-maskgit"}),
        ("reference_impls/weights/titok-maskgit-mini-16", {"titok-maskgit"}),
        ("reference_impls/weights/one-d-piece-mini-16", {"one-d-piece"}),
        ("reference_impls/weights/maskgit-vq-mini", set()),
        ("tokenmark/weights/mini-features", {"jpeg", "one-d-piece", "titok-maskgit"}),
    ],
)
@pytest.mark.parametrize("how", ["altered", "missing", "no card"])
def test_harmed_weights_stop_only_the_runs_that_read_them(context, weights_folder, harmed, failing, how):
    path = weights_folder / f"{harmed}.{'toml' if how == 'no card' else 'safetensors'}"
    path.write_bytes(b"altered") if how == "altered" else path.unlink()
    runs = planned(context, JPEG, LENGTHS, SAMPLES, TOME)
    assert len(runs) == 5
    for run in runs:
        method = run.title.split("/")[0].split()[0]
        assert (run.spec is None) == (method in failing)
        assert isinstance(run.problem, WeightsError) == (method in failing)


def test_weights_that_no_measure_reads_are_not_asked_for(context, weights_folder):
    for kind in ("safetensors", "toml"):
        (weights_folder / f"tokenmark/weights/mini-features.{kind}").unlink()
    (item,) = planned(context, {**JPEG, "measures": ["psnr", "rate"]})
    assert item.problem is None
    assert item.spec.weights == {}


def test_a_limit_leaves_as_many_images_as_there_are(context, weights_folder):
    runs = plan.plan(suite(JPEG, SAMPLES), "made", context, "site-made", limit=70)
    assert [run.spec.samples for run in runs] == [70, 70]
    runs = plan.plan(suite(JPEG, SAMPLES), "made", context, "site-made", limit=100_000)
    assert [run.spec.samples for run in runs] == [500, 90]


def test_seed_and_samples_are_the_protocols_unless_the_suite_says_them(context, weights_folder):
    (run,) = planned(context, {key: value for key, value in SAMPLES.items() if key != "samples"})
    assert (run.spec.samples, run.spec.seed) == (protocols.get("mini").samples, protocols.get("mini").seed)


def test_harmed_data_stop_only_the_runs_that_read_them(context, weights_folder, tmp_path):
    shutil.copytree(context.data, tmp_path / "data")
    path = tmp_path / "data" / "digits-32" / "train" / "images.npy"
    path.write_bytes(path.read_bytes()[:-1])
    runs = planned(Context(context.device, tmp_path / "data"), JPEG, SAMPLES, TOME)
    assert [type(run.problem) for run in runs] == [type(None), DataError, type(None)]
    assert "titok-maskgit" in runs[1].title


def test_every_variant_that_a_suite_may_name_has_its_weights_name():
    """A bundled variant names a file that no other method's variant of another shape uses."""
    for name in registry.locations():
        method = registry.get(name)
        if isinstance(method, TokenizerMethod):
            for size, variant in method.variants.items():
                assert variant.weights is None or variant.weights == f"{name}-{size}"
    assert all(backbone.weights == name for name, backbone in backbones.BACKBONES.items())


RANDOM = {"task": "classification", "method": "tome", "model": "test_vit.random", "measures": ["cost", "throughput"]}


def test_random_weights_and_no_data_are_in_the_specification(tmp_path):
    """Nothing is read or prepared: there is no data folder."""
    context = Context(torch.device("cpu"), tmp_path / "data")
    (item,) = planned(context, {**RANDOM, "precision": "bfloat16"}, protocol="throughput")
    spec = item.spec
    assert (spec.model, spec.weights, spec.data, spec.samples) == ("test_vit.random", {}, {}, 0)
    assert (spec.protocol, spec.precision, spec.measures) == ("throughput", "bfloat16", ("cost", "throughput"))
    assert spec.timing["batches"] == [1, 8]
    assert not (tmp_path / "data").exists()
    (other,) = planned(context, RANDOM, protocol="throughput")
    assert other.spec.precision == "float32"
    assert other.spec.run != spec.run


@pytest.mark.parametrize(
    ("job", "protocol", "message"),
    [
        (JPEG, "throughput", "protocol throughput reads no data, which reconstruction needs"),
        (SAMPLES, "throughput", "protocol throughput reads no data, which generation needs"),
        (TOME, "throughput", "protocol throughput reads no data, so tome has no accuracy there: list measures"),
        ({**RANDOM, "measures": None}, "mini", "test_vit.random has random weights, so tome has no accuracy on it"),
    ],
)
def test_what_cannot_be_measured_without_data_or_weights(job, protocol, message):
    with pytest.raises(SuiteError, match=message):
        jobs.check_names(suite(job, protocol=protocol))


DIT = {"task": "generation", "method": "dit", "variant": "mini", "preset": "dit-mini", "samples": 90}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"preset": "dit-mimi"}, UnknownNameError, "unknown preset of dit 'dit-mimi': did you mean dit-mini"),
        ({"preset": "dit-xl-2-256-paper"}, SuiteError, "is for xl-2-256: those for mini are dit-mini"),
        ({"reducer": "tomsd"}, UnknownNameError, "did you mean tomesd"),
        ({"reducer": "evit"}, TokenmarkError, "'evit' reduces the tokens of classifiers, and of no diffusion sampler"),
        (
            {"reducer": "tomesd", "reducer_settings": {"rate": 0.5}},
            UnknownNameError,
            "unknown setting of tomesd 'rate'",
        ),
        ({"reducer_settings": {"ratio": 0.5}}, SuiteError, "has reducer_settings and no reducer"),
        ({"measures": ["gfid", "psnr"]}, SuiteError, "psnr, which compare with the unreduced sampler: name a reducer"),
    ],
)
def test_what_a_sampler_cannot_be_asked_for(changes, error, message):
    with pytest.raises(error, match=message):
        jobs.check_names(suite({**DIT, **changes}))


def test_a_reducer_of_a_sampler_names_the_run_and_is_part_of_its_source(context, weights_folder):
    plain, reduced, other = (
        item.spec
        for item in planned(
            context,
            DIT,
            {**DIT, "reducer": "tomesd", "reducer_settings": {"ratio": 0.25}},
            {**DIT, "reducer": "tomesd", "reducer_settings": {"ratio": 0.5}},
        )
    )
    assert plain.settings == {"preset": "dit-mini"}
    assert reduced.settings == {"preset": "dit-mini", "reducer": "tomesd", "ratio": 0.25}
    assert len({spec.run for spec in (plain, reduced, other)}) == 3
    assert plain.implementation not in {reduced.implementation, registry.implementation("dit")}
    assert reduced.implementation == other.implementation
