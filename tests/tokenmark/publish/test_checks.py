"""Every check by its tampered record: also those that somebody sealed again."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.tokenmark import clone, make
from tests.tokenmark.clone import resealed, valued
from tokenmark.publish import checks
from tokenmark.records import Value
from tokenmark.store import Results

ROOT = Path(__file__).parents[3]


def test_measured_records_pass_every_check(root):
    for path in Results(root / "results").paths():
        assert clone.refused(root, path, "incoming") == {}
        assert clone.refused(root, path, "kept") == {}


def test_checks_are_listed_and_described():
    names = [name for name, _ in checks.listed()]
    assert len(set(names)) == len(names)
    text = (ROOT / "docs" / "publish.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| `")]
    assert rows == [f"`{name}`" for name in names]
    for _, about in checks.listed():
        assert len(about) > 20


def test_every_check_of_a_record_is_tried_below():
    tried = {check for check, _, _ in [*FILES, *JPEG, *TIMED]} | {"copy", "agreement", "duplicate", "parity"}
    assert tried == {check.id for check in checks.CHECKS}


def edited(**changes):
    """Change fields of the JSON, and nothing else."""

    def edit(path):
        path.write_text(json.dumps({**json.loads(path.read_bytes()), **changes}, indent=1, sort_keys=True) + "\n")
        return path

    return edit


def written(data):
    """Other bytes."""

    def write(path):
        path.write_bytes(data(path.read_bytes()))
        return path

    return write


def moved(to):
    """Another name or folder."""

    def move(path):
        target = path.parent / to(path.name)
        target.parent.mkdir(exist_ok=True)
        return path.rename(target)

    return move


def on_picture(action):
    """Something done to the picture beside it."""

    def act(path):
        action(path.with_suffix(".reconstructions.png"))
        return path

    return act


FILES = [
    ("schema", written(lambda data: data[: len(data) // 2]), "not whole JSON"),
    ("schema", written(lambda _: b"[]"), "has schema None"),
    ("schema", written(lambda _: b"\xff\xfe"), "not whole JSON"),
    ("schema", edited(schema_version=3), "has schema 3"),
    ("schema", edited(rank=1), "rank"),
    ("schema", edited(run="abc"), "run"),
    ("schema", edited(values=[{"name": "rfid", "value": "best", "n": 1}]), "values"),
    ("seal", written(lambda data: data.replace(b'"n": 500', b'"n": 501', 1)), "its seal does not match"),
    ("seal", edited(run="0" * 64), "its run is not the hash"),
    ("seal", edited(seal=""), "its seal does not match"),
    ("seal", written(lambda data: json.dumps(json.loads(data)).encode()), "not as Tokenmark writes them"),
    ("run-name", moved(lambda _: f"{'0' * 64}.json"), "must be called"),
    ("run-name", moved(lambda name: f"{name[:12]}.json"), "must be called"),
    ("place", moved(lambda name: f"../webp/{name}"), "must lie in records/small/jpeg/"),
    ("pictures", on_picture(lambda path: path.unlink()), "is missing"),
    ("pictures", on_picture(lambda path: path.write_bytes(path.read_bytes() + b"0")), "was altered"),
]


@pytest.mark.parametrize(("check", "tamper", "words"), FILES, ids=[f"{check}-{words}" for check, _, words in FILES])
def test_tampered_files(root, check, tamper, words):
    path = tamper(Results(root / "results").path(clone.of(root, "jpeg").spec))
    found = clone.refused(root, path, "kept")
    assert words in found[check], found


def unlike(name):
    """The value that is dropped, doubled or added."""
    return Value(name=name, value=0.5, n=500)


def without(record, name):
    return resealed(record, values=tuple(value for value in record.values if value.name != name))


def soon():
    return (datetime.now(UTC) + timedelta(days=3)).isoformat(timespec="seconds")


def elsewhere(record, file):
    picture = record.pictures["reconstructions"].model_copy(update={"file": file})
    return record.model_copy(update={"pictures": {"reconstructions": picture}}).sealed()


JPEG = [
    ("pictures", lambda r: elsewhere(r, "../../../secret.png"), "must be called"),
    ("method", lambda r: resealed(r, spec={"method": "jpgg"}), "unknown method 'jpgg': did you mean jpeg?"),
    ("method", lambda r: resealed(r, spec={"method": "tome"}), "'tome' is a reducer, but a tokenizer is needed"),
    ("method", lambda r: resealed(r, spec={"variant": "q11"}), "unknown variant of jpeg 'q11'"),
    ("method", lambda r: resealed(r, spec={"variant": None}), "unknown variant of jpeg"),
    ("method", lambda r: resealed(r, spec={"task": "generation"}), "but a generator is needed"),
    ("suite", lambda r: resealed(r, spec={"suite": "large"}), "unknown suite 'large'"),
    ("suite", lambda r: resealed(r, spec={"batch_size": 49}), "no job that gives jpeg/q10"),
    ("suite", lambda r: resealed(r, spec={"seed": 1}), "no job that gives"),
    ("suite", lambda r: resealed(r, spec={"tokens": 4}), "no job that gives"),
    ("suite", lambda r: resealed(r, spec={"variant": "q95"}), "no job that gives"),
    ("suite", lambda r: resealed(r, spec={"timing": {"min_rounds": 1}}), "no job that gives"),
    ("suite", lambda r: resealed(r, spec={"protocol": "throughput"}), "under protocol mini, not throughput"),
    ("protocol", lambda r: resealed(r, spec={"protocol": "minni"}), "did you mean mini"),
    ("protocol", lambda r: resealed(r, spec={"protocol_version": 0}), "mini is v1 today, the record has v0"),
    ("protocol", lambda r: resealed(r, spec={"protocol_sha256": "0" * 64}), "another hash"),
    ("implementation", lambda r: resealed(r, spec={"implementation": "0" * 64}), "not what was measured"),
    ("weights", lambda r: resealed(r, spec={"weights": {"mini-features": "0" * 64}}), "are not the repository's"),
    ("weights", lambda r: resealed(r, spec={"weights": {}}), "names no weights"),
    ("weights", lambda r: resealed(r, spec={"weights": {"better": "0" * 64}}), "known to no method"),
    (
        "weights",
        lambda r: resealed(r, spec={"weights": {**r.spec.weights, "alexnet-owt-7be5be79.pth": "0" * 64}}),
        "another SHA-256 than was published",
    ),
    ("data", lambda r: resealed(r, spec={"data": {"digits-32/val": "0" * 64}}), "has another hash"),
    ("data", lambda r: resealed(r, spec={"data": {}}), "which the record does not name"),
    ("data", lambda r: resealed(r, spec={"data": {**r.spec.data, "more/val": "0" * 64}}), "reads more/val"),
    ("samples", lambda r: resealed(r, spec={"samples": 400}), "400 images where protocol mini takes 500"),
    ("samples", lambda r: resealed(r, spec={"samples": 0}), "of no images"),
    ("samples", lambda r: resealed(r, warnings=("not comparable: a subset",)), "a subset"),
    ("provenance", lambda r: resealed(r, environment={"commit": None}), "its commit is not known"),
    ("provenance", lambda r: resealed(r, environment={"commit": "0" * 40}), "is not in this repository"),
    ("provenance", lambda r: resealed(r, environment={"dirty": True}), "dirty"),
    ("provenance", lambda r: resealed(r, environment={"dirty": None}), "dirty"),
    ("provenance", lambda r: resealed(r, environment={"lock": None}), "was not pinned"),
    ("provenance", lambda r: resealed(r, environment={"lock": "own.txt"}), "none that the repository has or had"),
    ("provenance", lambda r: resealed(r, environment={"lock": "../locks/bench.txt"}), "none that the repository"),
    ("provenance", lambda r: resealed(r, environment={"lock_sha256": "0" * 64}), "none that the repository has or had"),
    ("device", lambda r: resealed(r, spec={"device": "cuda: NVIDIA H100"}), "its environment"),
    ("device", lambda r: resealed(r, environment={"threads": 64}), "its environment"),
    ("device", lambda r: resealed(r, environment={"device_name": " "}), "names no device"),
    ("device", lambda r: resealed(r, environment={"cores": 0}), "no cores, threads or memory"),
    ("device", lambda r: resealed(r, environment={"libraries": {}}), "torch's version"),
    ("day", lambda r: resealed(r, started=soon()), "in the future"),
    ("day", lambda r: resealed(r, started="2026-01-02T03:04:05"), "no time zone"),
    ("day", lambda r: resealed(r, started="yesterday"), "no time as ISO 8601"),
    ("measures", lambda r: without(r, "ssim"), "ssim, which the record lacks"),
    ("measures", lambda r: resealed(r, values=()), "measures nothing"),
    ("measures", lambda r: resealed(r, values=(*r.values, unlike("top1"))), "given by none of its measures"),
    ("measures", lambda r: resealed(r, values=(*r.values, unlike("psnr"))), "psnr stands there twice"),
    ("measures", lambda r: resealed(r, spec={"measures": ("rfid", "beauty")}), "it measures beauty"),
    ("measures", lambda r: valued(r, "psnr", n=5000), "of 5000 images, the run of 500"),
    ("measures", lambda r: valued(r, "psnr", n=0), "of 0 images"),
    ("values", lambda r: valued(r, "rfid", value=-0.5), "rfid cannot be -0.5"),
    ("values", lambda r: valued(r, "ssim", value=1.2), "ssim cannot be 1.2"),
    ("values", lambda r: valued(r, "psnr", se=-0.1), "negative"),
    ("values", lambda r: valued(r, "psnr", interval=(1.0, 2.0)), "outside of its own interval"),
    ("timings", lambda r: resealed(r, durations={}), "missing or negative"),
    ("timings", lambda r: resealed(r, durations={"images": -1.0}), "missing or negative"),
    ("timings", lambda r: resealed(r, durations={"images": 0.0}), "no time"),
    ("timings", lambda r: resealed(r, peak_memory_bytes=0), "no memory"),
]


@pytest.mark.parametrize(("check", "tamper", "words"), JPEG, ids=[f"{check}-{words}" for check, _, words in JPEG])
def test_sealed_again(root, check, tamper, words):
    record = clone.of(root, "jpeg")
    path = clone.put(root, tamper(record), record)
    found = clone.refused(root, path)
    assert words in found[check], found
    assert "\n" not in found[check]


STRUCTURE = [
    ("method", {"variant": "mini-17"}, "unknown variant of titok"),
    ("suite", {"variant": "s128"}, "no job that gives titok/s128"),
    ("suite", {"tokens": 5}, "no job that gives titok/mini-16 tokens=5"),
    ("device", {"device": "cpu: Made, 1 threads"}, "its environment 'any device'"),
    ("measures", {"measures": ("size", "cost", "rfid")}, "it measures rfid"),
    ("samples", {"measures": ("size", "cost", "rfid")}, "of no images"),
    ("data", {"data": {"digits-32/val": "0" * 64}}, "reads digits-32/val"),
]


@pytest.mark.parametrize(("check", "spec", "words"), STRUCTURE, ids=[words for _, _, words in STRUCTURE])
def test_structure_sealed_again(root, check, spec, words):
    record = clone.of(root, "titok")
    found = clone.refused(root, clone.put(root, resealed(record, spec=spec), record))
    assert words in found[check], found


def swept(record, change):
    """The record with something in its sweep changed."""
    details = json.loads(json.dumps(record.details))
    change(details)
    return resealed(record, details=details)


def set_all(table, number):
    def change(details):
        for point in details["throughput"]:
            point[table]["method"] = number

    return change


def faster(record, factor):
    """Somebody who writes better times everywhere, and forgets nothing."""
    details = json.loads(json.dumps(record.details))
    for point in details["throughput"]:
        for q in ("p50", "p90", "p99"):
            point[f"{q}_ms"]["method"] /= factor
        point["images_per_second"]["method"] *= factor
    values = []
    for value in record.values:
        by = 1 / factor if value.name.startswith("latency") else factor
        if value.name.startswith(("latency", "images_per_second", "speedup")):
            interval = tuple(bound * by for bound in value.interval) if value.interval else None
            values.append(value.model_copy(update={"value": value.value * by, "interval": interval}))
        else:
            values.append(value)
    return resealed(record, details=details, values=tuple(values))


TIMED = [
    ("method", lambda r: resealed(r, spec={"model": "vit-minni"}), "unknown model 'vit-minni'"),
    ("method", lambda r: resealed(r, spec={"settings": {"keep_rte": 0.7}}), "unknown setting of strided 'keep_rte'"),
    ("suite", lambda r: resealed(r, spec={"settings": {"keep_rate": 0.6}}), "no job that gives"),
    ("suite", lambda r: resealed(r, spec={"timing": {**r.spec.timing, "min_rounds": 1}}), "no job that gives"),
    ("suite", lambda r: resealed(r, spec={"budget": "50%"}), "no job that gives"),
    ("values", lambda r: valued(r, "top1", value=r.value("top1").value + 1e-4), "which no number of 500 images is"),
    ("values", lambda r: valued(r, "top1", interval=(0.0, 1.0)), "not Wilson's"),
    ("values", lambda r: valued(r, "top1", interval=None), "not Wilson's"),
    ("values", lambda r: valued(r, "macs", value=0.0), "macs cannot be 0"),
    ("timings", lambda r: swept(r, lambda details: details.pop("throughput")), "sweep over batch sizes"),
    ("timings", lambda r: swept(r, lambda details: details["throughput"].clear()), "sweep over batch sizes"),
    ("timings", lambda r: swept(r, lambda details: details["throughput"][0].pop("p50_ms")), "sweep over batch sizes"),
    ("timings", lambda r: swept(r, lambda details: details["throughput"][0].update(rounds=1)), "fewer rounds"),
    ("timings", lambda r: swept(r, lambda d: d["throughput"][0].update(rounds=10**6)), "its rounds alone take"),
    ("timings", lambda r: swept(r, set_all("p90_ms", 1e-3)), "do not rise"),
    ("timings", lambda r: swept(r, set_all("images_per_second", 1e6)), "its median time gives"),
    ("timings", lambda r: valued(r, "images_per_second", value=1e6, interval=(1e5, 1e7)), "the sweep in its details"),
    ("timings", lambda r: valued(r, "speedup_best", value=2.9, interval=(2.0, 3.0)), "the sweep in its details"),
    ("timings", lambda r: valued(r, "latency_p50_ms", value=1e-3), "the sweep in its details"),
    ("timings", lambda r: valued(r, "best_batch", value=512.0), "the sweep in its details"),
    ("timings", lambda r: faster(r, 1000.0), "is not believed"),
]


@pytest.mark.parametrize(("check", "tamper", "words"), TIMED, ids=[f"{check}-{words}" for check, _, words in TIMED])
def test_timed_and_sealed_again(root, check, tamper, words):
    record = clone.of(root, "strided")
    path = clone.put(root, tamper(record), record)
    found = clone.refused(root, path)
    assert words in found[check], found


def test_a_copy_under_another_site(root):
    other = resealed(clone.of(root, "jpeg"), spec={"site": "site-b"})
    found = clone.refused(root, clone.put(root, other))
    assert set(found) == {"copy"}
    assert "by site-a" in found["copy"]


@pytest.mark.parametrize("earlier", [False, True])
def test_one_experiment_has_one_result(root, earlier):
    """A newcomer is told, whenever it claims to have been measured."""
    record = clone.of(root, "jpeg")
    started = "2020-01-01T00:00:00+00:00" if earlier else record.started
    other = resealed(valued(record, "psnr", value=record.value("psnr").value + 5), spec={"site": "b"}, started=started)
    found = clone.refused(root, clone.put(root, other))
    assert set(found) == {"agreement"}
    assert "psnr" in found["agreement"]
    assert record.run[:12] in found["agreement"]
    assert clone.refused(root, Results(root / "results").path(record.spec), "kept") == {}


@pytest.mark.parametrize(
    ("name", "factor", "refused"),
    [
        ("macs", 1.001, True),
        ("macs", 1.0, False),
        ("parameters", 1.01, True),
        ("latency_p99_ms", 1.5, False),
    ],
)
def test_agreement_by_kind(root, name, factor, refused):
    record = clone.of(root, "strided")
    changed = valued(record, name, value=record.value(name).value * factor)
    other = resealed(changed, spec={"site": "b"}, durations={**record.durations, "open": 9.0})
    found = clone.refused(root, clone.put(root, other))
    assert ("agreement" in found) == refused


def test_times_on_one_device_several_times_apart(root):
    record = clone.of(root, "strided")
    other = resealed(faster(record, 1 / 20), spec={"site": "b"}, durations={"images": 1e4})
    found = clone.refused(root, clone.put(root, other))
    assert set(found) == {"agreement"}
    assert "on one device" in found["agreement"]
    elsewhere = resealed(
        other, spec={"device": "cpu: Slow, 1 threads"}, environment={"device_name": "Slow", "threads": 1}
    )
    assert clone.refused(root, clone.put(root, elsewhere, other)) == {}


def test_an_old_record_need_not_be_of_today(root):
    record = clone.of(root, "jpeg")
    old = resealed(record, spec={"implementation": "0" * 64, "suite": "old", "protocol_version": 0, "seed": 7})
    path = clone.put(root, old, record)
    assert clone.refused(root, path, "kept") == {}
    assert {"suite", "protocol", "implementation"} <= set(clone.refused(root, path, "incoming"))


def test_a_made_up_record_is_refused(root):
    """What the other tests make: nothing in it is true."""
    found = clone.refused(root, clone.put(root, make.record(suite="small")))
    assert {"suite", "protocol", "implementation", "weights", "data", "provenance"} <= set(found)
