"""Sets of records, joined by what was asked for."""

import io
import json

import pytest
from rich.console import Console

from tests.tokenmark import clone, make
from tokenmark import comparison, comparisonview
from tokenmark.errors import RecordError, TokenmarkError
from tokenmark.records import Value
from tokenmark.store import Results

GPU = {"device": "cuda: NVIDIA Made 9000", "environ": make.environment(device="cuda", device_name="NVIDIA Made 9000")}


def shown(found):
    out = io.StringIO()
    comparisonview.show(found, Console(file=out, width=100, highlight=False))
    return out.getvalue()


@pytest.fixture
def history(tmp_path):
    """Two commits: in the second jpeg's source changed, tome is gone, and webp came."""
    root = tmp_path / "clone"
    root.mkdir()
    clone.git(root, "init", "--quiet")
    results = Results(root / "results")
    jpeg, tome = make.record(), make.classified()
    for record in (jpeg, tome):
        results.write(record, {})
    first = clone.commit(root, "one")
    for record in (jpeg, tome):
        results.path(record.spec).unlink()
    values = [Value(name="rfid", value=99.0, n=500, se=0.4), *make.RECONSTRUCTED[1:]]
    new = make.record(values, implementation=make.digest("other"))
    for record in (new, make.record(method="webp")):
        results.write(record, {})
    return results, first, clone.commit(root, "two")


def test_two_commits(history):
    results, first, second = history
    before = sorted(results.records.rglob("*"))
    found = comparison.compare(comparison.side(first[:10], results), comparison.side("HEAD", results))
    assert [pair.first.spec.method for pair in found.pairs] == ["jpeg"]
    assert [record.spec.method for record in found.only_first] == ["tome"]
    assert [record.spec.method for record in found.only_second] == ["webp"]
    assert set(found.common()) == {"implementation"}
    text = shown(found)
    assert f"A commit {first[:12]}: 2 records" in text
    assert f"B commit {second[:12]}: 2 records" in text
    assert "1 of the same request; 1 in A alone (tome/vit-mini r=4), 1 in B alone (webp/q50)" in " ".join(text.split())
    (rfid,) = [line.split() for line in text.splitlines() if "rfid" in line]
    assert rfid == ["jpeg/q50", "rfid", "12.3457", "99", "+86.7", "yes"]
    assert "psnr" not in text
    assert "3 values: 2 the same bit for bit, 1 of the others beyond their errors." in text
    assert sorted(results.records.rglob("*")) == before


def test_as_json(history):
    results, first, second = history
    found = comparison.compare(comparison.side(first, results), comparison.side(second, results)).to_json()
    assert json.loads(json.dumps(found)) == found
    (pair,) = found["pairs"]
    assert pair["same_experiment"] is False
    assert pair["values"][0]["a"] == 12.345678
    assert pair["values"][0]["beyond_errors"] is True
    assert [value["difference"] for value in pair["values"][1:]] == [0.0, 0.0]
    assert found["differs_in_all"] == {"implementation": [make.digest("implementation"), make.digest("other")]}
    assert (len(found["only_a"]), len(found["only_b"])) == (1, 1)


@pytest.fixture
def devices(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results = Results(tmp_path / "results")
    values = [Value(name="rfid", value=12.4, n=500, se=0.4), *make.RECONSTRUCTED[1:]]
    for record in (make.record(), make.record(values, **GPU), make.record(seed=1), make.record(seed=2, **GPU)):
        results.write(record, {})
    return results


def test_two_devices(devices):
    found = comparison.compare(comparison.side("cpu: made", devices), comparison.side("9000", devices))
    assert [(pair.first.spec.seed, pair.second.spec.seed) for pair in found.pairs] == [(0, 0)]
    assert [record.spec.seed for record in (*found.only_first, *found.only_second)] == [1, 2]
    assert {"device", "environment device"} <= set(found.common())
    assert "device '9000': 2 records" in shown(found)
    (row,) = [line.split() for line in shown(found).splitlines() if "rfid" in line]
    assert row[-1] == "no"


def test_of_one_request_the_newest_counts(devices):
    old = make.record(implementation=make.digest("old"))
    old = old.model_copy(update={"started": "2020-01-01T00:00:00+00:00"}).sealed()
    devices.write(old, {})
    (pair,) = comparison.compare(comparison.side("cpu", devices), comparison.side("cuda", devices)).pairs
    assert pair.first.spec.implementation == make.digest("implementation")


def test_a_record_and_a_set(devices):
    record = make.record()
    for name in (record.run[:8], str(devices.path(record.spec))):
        found = comparison.compare(comparison.side(name, devices), comparison.side("9000", devices))
        assert [pair.first.run for pair in found.pairs] == [record.run]


def test_two_records_are_shown_as_ever(devices):
    one, other = (make.record(seed=seed).run[:12] for seed in (0, 1))
    found = comparison.compare(comparison.side(one, devices), comparison.side(other, devices))
    assert "different experiments" in shown(found)
    assert found.to_json()["pairs"][0]["values"][0]["name"] == "rfid"


@pytest.mark.parametrize("name", ["", "abc", "zzzz", "tpu", "0" * 64])
def test_what_means_nothing(devices, name):
    with pytest.raises(TokenmarkError, match="no commit here and no device is called so; devices: cpu: Made"):
        comparison.side(name, devices)


def test_what_means_two_things(history):
    results, first, _ = history
    record = make.record(seed=3)
    path = results.write(record, {})
    path.rename(path.with_name(f"{first}{'0' * 24}.json"))
    with pytest.raises(TokenmarkError, match="the run of a record and of a commit: give more of its digits"):
        comparison.side(first[:10], results)


def test_an_altered_record_stops_it(devices):
    path = devices.path(make.record().spec)
    path.write_bytes(path.read_bytes().replace(b"27.5", b"28.5"))
    with pytest.raises(RecordError, match="was altered"):
        comparison.side("cpu", devices)


def test_a_commit_without_records_or_of_another_schema(history):
    results, *_ = history
    root = results.root.parent
    clone.git(root, "rm", "-r", "--quiet", "results")
    empty = clone.commit(root, "none")
    with pytest.raises(TokenmarkError, match="there are no records below results/records"):
        comparison.side(empty, results)
    results.write(make.record(), {})
    path = results.path(make.record().spec)
    path.write_bytes(path.read_bytes().replace(b'"schema_version": 2', b'"schema_version": 1'))
    old = clone.commit(root, "old")
    with pytest.raises(RecordError, match=f"at commit {old[:12]}: .* has schema 1"):
        comparison.side(old, results)
