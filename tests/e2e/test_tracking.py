"""MLflow is a view of the records: equal to them, never doubled, and never in the way of a run."""

import json
import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from tests.e2e import plugins
from tests.e2e.harness import JPEG, Place, write_suite

mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed")


@pytest.fixture(scope="module", autouse=True)
def quiet():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        yield


def logged(store: Path | str, experiment: str = "tokenmark/small") -> dict[str, mlflow.entities.Run]:
    """The runs that MLflow shows, by name, read with MLflow's own client."""
    uri = store if isinstance(store, str) else f"sqlite:///{store}"
    client = mlflow.MlflowClient(tracking_uri=uri)
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    assert len({run.info.run_name for run in found}) == len(found), "a run is there twice"
    return {run.info.run_name: run for run in found}


def metrics_of(record: dict) -> dict[str, float]:
    wanted = {}
    for value in record["values"]:
        wanted[value["name"]] = value["value"]
        if value["se"] is not None:
            wanted[value["name"] + ".se"] = value["se"]
        if value["interval"] is not None:
            wanted[value["name"] + ".low"], wanted[value["name"] + ".high"] = value["interval"]
    return wanted


def check(store: Path | str, records: dict[str, dict], folder: Path) -> None:
    runs = logged(store)
    by_run = {run.data.tags["tokenmark.run"]: run for run in runs.values()}
    assert set(by_run) == {record["run"] for record in records.values()}
    for record in records.values():
        run = by_run[record["run"]]
        assert run.info.status == "FINISHED"
        rest = {name: number for name, number in run.data.metrics.items() if not name.startswith("seconds.")}
        assert rest.pop("peak_memory_bytes") == record["peak_memory_bytes"]
        assert rest == metrics_of(record)
        for name in (
            "method",
            "variant",
            "task",
            "protocol",
            "suite",
            "samples",
            "batch_size",
            "seed",
            "implementation",
        ):
            assert run.data.params[name] == str(record["spec"][name])
        for name, digest in record["spec"]["weights"].items():
            assert run.data.params[f"weights.{name}"] == digest
        artifacts = Path(run.info.artifact_uri.removeprefix("file://"))
        expected = [folder / "records" / "small" / record["spec"]["method"] / f"{record['run']}.json"]
        expected += [expected[0].parent / picture["file"] for picture in record["pictures"].values()]
        assert {path.name for path in artifacts.iterdir()} == {path.name for path in expected}
        for path in expected:
            assert (artifacts / path.name).read_bytes() == path.read_bytes()


def test_the_default_store_equals_the_records(finished: Place):
    check(finished.results / "mlflow.db", finished.records(), finished.results)
    interval = metrics_of(finished.records()["tome"])
    assert {"top1.low", "top1.high", "top1_difference.se"} <= set(interval)
    assert any(record["pictures"] for record in finished.records().values())


def copied(finished: Place, place: Place) -> Place:
    """The finished run's records, and the empty store."""
    shutil.copytree(finished.results / "records", place.results / "records")
    return place


def test_a_store_that_is_gone_is_made_again(finished: Place, place: Place):
    copied(finished, place)
    store = place.results / "mlflow.db"
    store.unlink()
    assert "4 records logged, 0 were there" in place.call("sync", "--results", place.results).well()
    check(store, place.records(), place.results)
    assert "0 records logged, 4 were there" in place.call("sync", "--results", place.results).well()
    suite = write_suite(place.folder / "small.toml", JPEG)
    assert "MLflow: 0 new runs, 1 were there" in place.run(suite).well()
    check(store, place.records(), place.results)


def test_a_dead_server_loses_nothing(place: Place):
    suite = write_suite(place.folder / "small.toml", JPEG)
    place.env["MLFLOW_TRACKING_URI"] = "http://127.0.0.1:9"
    notes = [line for line in place.run(suite).well().splitlines() if line.startswith("note")]
    assert len(notes) == 1
    assert "MLflow at http://127.0.0.1:9 did not take the results" in notes[0]
    assert "run `tokenmark sync` once it is back" in notes[0]
    assert set(place.records()) == {"jpeg"}
    place.call("sync", "--results", place.results).mistake("MLflow at http://127.0.0.1:9", "the records are safe")
    del place.env["MLFLOW_TRACKING_URI"]
    assert "1 records logged" in place.call("sync", "--results", place.results).well()
    check(place.results / "mlflow.db", place.records(), place.results)


def test_a_locked_store_loses_nothing(place: Place):
    suite = write_suite(place.folder / "small.toml", JPEG)
    store = place.results / "mlflow.db"
    with sqlite3.connect(store, isolation_level=None) as other:
        other.execute("begin exclusive")
        notes = [line for line in place.run(suite).well().splitlines() if line.startswith("note")]
        other.execute("rollback")
    assert len(notes) == 1
    assert "locked" in notes[0]
    assert "1 records logged" in place.call("sync", "--results", place.results).well()
    check(store, place.records(), place.results)


@pytest.mark.parametrize("kind", ["below-a-file", "not-a-database", "not-a-uri"])
def test_a_store_that_cannot_be_opened_loses_nothing(place: Place, kind: str):
    suite = write_suite(place.folder / "small.toml", JPEG)
    (place.folder / "file").write_text("this is no database, whatever its name says" * 50, encoding="utf-8")
    places = {
        "below-a-file": f"sqlite:///{place.folder}/file/mlflow.db",
        "not-a-database": f"sqlite:///{place.folder}/file",
        "not-a-uri": "carrier-pigeon://loft",
    }
    place.env["MLFLOW_TRACKING_URI"] = places[kind]
    notes = [line for line in place.run(suite).well().splitlines() if line.startswith("note")]
    assert len(notes) == 1
    assert "did not take the results" in notes[0]
    assert set(place.records()) == {"jpeg"}


def test_curves_of_a_code_of_variable_length(place: Place):
    place.path = (plugins.install(place.folder / "site", "stranger", {"rows": plugins.tokenizer("rows")}),)
    line = '{ task = "reconstruction", method = "rows", variant = "r16", tokens = [4, 1, 16] }'
    suite = write_suite(place.folder / "small.toml", line)
    place.run(suite).well()
    paths = (place.results / "records" / "small" / "rows").glob("*.json")
    records = {record["spec"]["tokens"]: record for record in (json.loads(path.read_bytes()) for path in paths)}
    store = place.results / "mlflow.db"
    runs = logged(store)
    assert set(runs) == {"rows/r16 tokens=1", "rows/r16 tokens=4", "rows/r16 tokens=16", "rows/r16 curve"}
    curve = runs["rows/r16 curve"]
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{store}")
    for name in ("rfid", "psnr", "ssim"):
        steps = {point.step: point.value for point in client.get_metric_history(curve.info.run_id, name)}
        values = {tokens: {v["name"]: v["value"] for v in record["values"]}[name] for tokens, record in records.items()}
        assert steps == values
    psnr = [{v["name"]: v["value"] for v in records[tokens]["values"]}["psnr"] for tokens in (1, 4, 16)]
    assert psnr[0] < psnr[1] < psnr[2]
    [picture] = Path(curve.info.artifact_uri.removeprefix("file://")).iterdir()
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "MLflow: 0 new runs, 3 were there" in place.run(suite).well()
    assert set(logged(store)) == set(runs)


def test_no_telemetry(place: Place, tmp_path: Path):
    """MLflow is told to send nothing before it is imported, unless the user said otherwise."""
    seen = tmp_path / "seen"
    look = (
        "import atexit, os, pathlib\n"
        f"atexit.register(lambda: pathlib.Path({str(seen)!r}).write_text(os.environ['MLFLOW_DISABLE_TELEMETRY']))"
    )
    place.call("sync", "--results", place.results, before=look).well()
    assert seen.read_text() == "true"
    assert "MLFLOW_DISABLE_TELEMETRY" not in place.environment()
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
