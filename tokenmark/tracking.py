"""Records as MLflow runs. JSON is the truth; this view of it can be lost, locked or late, and be made again.

The only module that imports mlflow, and only when it is needed.
"""

import contextlib
import logging
import os
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

from tokenmark import curves
from tokenmark.errors import TokenmarkError
from tokenmark.records import Record
from tokenmark.store import Results

RUN_TAG, SEAL_TAG = "tokenmark.run", "tokenmark.seal"
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""A dead server is found out in seconds, unless the user asks for more patience."""


class TrackingError(TokenmarkError):
    """The tracking store could not be reached or written. Records are not concerned."""


def uri(results: Results) -> str:
    """`MLFLOW_TRACKING_URI`, or a sqlite file in the results folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(results.root / 'mlflow.db').resolve()}"


class Tracker:
    """Logs records to MLflow, each once."""

    def __init__(self, results: Results) -> None:
        """Open the store.

        Raises:
            TrackingError: it cannot be reached.
        """
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
        self.uri = uri(results)
        self._results = results
        with _failures(self.uri):
            import mlflow  # noqa: PLC0415  half a second, and only where it is used

            for name in ("mlflow", "alembic"):  # importing mlflow sets them up
                logging.getLogger(name).setLevel(logging.ERROR)
            self._client: Any = mlflow.MlflowClient(tracking_uri=self.uri)
            self._experiments = {found.name: found.experiment_id for found in self._client.search_experiments()}

    def log(self, record: Record) -> bool:
        """Log a record with its pictures unless it is there already; whether it was new.

        Raises:
            TrackingError: the store refused.
        """
        with _failures(self.uri):
            experiment = self._experiment(f"tokenmark/{record.spec.suite}")
            if self._there(experiment, record.seal):
                return False
            self._write(experiment, record)
            return True

    def log_curves(self, records: Iterable[Record]) -> int:
        """Log each curve over token counts as a run of its own, a step per count; how many were new.

        Raises:
            TrackingError: the store refused.
        """
        new = 0
        with _failures(self.uri):
            for curve in curves.of(records):
                experiment = self._experiment(f"tokenmark/{curve.suite}")
                if not self._there(experiment, curve.seal):
                    self._write_curve(experiment, curve)
                    new += 1
        return new

    def _experiment(self, name: str) -> str:
        if name not in self._experiments:
            # the artifacts of the default store lie beside its database; a server keeps its own
            place = (self._results.root / "mlartifacts").resolve()
            local = place.as_uri() if self.uri.startswith("sqlite:") else None
            self._experiments[name] = self._client.create_experiment(name, artifact_location=local)
        return str(self._experiments[name])

    def _there(self, experiment: str, seal: str) -> bool:
        """Whether a finished run holds this; runs that a kill or an error left unfinished are removed."""
        found = self._client.search_runs([experiment], f"tags.`{SEAL_TAG}` = '{seal}'")
        for run in found:
            if run.info.status != "FINISHED":
                self._client.delete_run(run.info.run_id)
        return any(run.info.status == "FINISHED" for run in found)

    def _write(self, experiment: str, record: Record) -> None:
        with self._new_run(experiment, record.spec.title, record.run, record.seal) as run:
            self._batch(run, _metrics(record), _params(record))
            path = self._results.path(record.spec)
            self._client.log_artifact(run, str(path))
            for picture in record.pictures.values():
                self._client.log_artifact(run, str(path.parent / picture.file))

    def _write_curve(self, experiment: str, curve: curves.Curve) -> None:
        with self._new_run(experiment, f"{curve.title} curve", curve.seal, curve.seal) as run:
            steps = {name: list(zip(curve.tokens, values, strict=True)) for name, values in curve.values.items()}
            self._batch(run, steps, {"method": curve.title, "suite": curve.suite})
            with curves.png(curve) as picture:
                self._client.log_artifact(run, str(picture))

    @contextlib.contextmanager
    def _new_run(self, experiment: str, title: str, name: str, seal: str) -> Iterator[str]:
        run = self._client.create_run(experiment, run_name=title, tags={RUN_TAG: name, SEAL_TAG: seal}).info.run_id
        try:
            yield run
        except BaseException:
            with contextlib.suppress(Exception):
                self._client.set_terminated(run, "FAILED")
            raise
        self._client.set_terminated(run, "FINISHED")

    def _batch(self, run: str, metrics: dict[str, list[tuple[int, float]]], params: dict[str, str]) -> None:
        from mlflow.entities import Metric, Param  # noqa: PLC0415

        points = [Metric(name, value, 0, step) for name, steps in metrics.items() for step, value in steps]
        self._client.log_batch(run, metrics=points, params=[Param(name, value) for name, value in params.items()])


def _metrics(record: Record) -> dict[str, list[tuple[int, float]]]:
    """Values by name, with `.se`, `.low` and `.high` for their errors, and the measured durations."""
    metrics: dict[str, float] = {}
    for value in record.values:
        metrics[value.name] = value.value
        if value.se is not None:
            metrics[f"{value.name}.se"] = value.se
        if value.interval is not None:
            metrics[f"{value.name}.low"], metrics[f"{value.name}.high"] = value.interval
    metrics |= {f"seconds.{name}": seconds for name, seconds in record.durations.items()}
    metrics["peak_memory_bytes"] = record.peak_memory_bytes
    return {name: [(0, float(number))] for name, number in metrics.items()}


def _params(record: Record) -> dict[str, str]:
    spec = record.spec.model_dump(mode="json")
    params = {name: str(value) for name, value in spec.items() if not isinstance(value, dict)}
    nested = {name: value for name, value in spec.items() if isinstance(value, dict)}
    params |= {f"{name}.{key}": str(item) for name, value in nested.items() for key, item in value.items()}
    environment = record.environment
    params |= {
        "commit": str(environment.commit),
        "dirty": str(environment.dirty),
        "device_name": environment.device_name,
    }
    return params


@contextlib.contextmanager
def _failures(place: str) -> Iterator[None]:
    """Whatever a tracking store does wrong is one kind of error, with one line; its chatter is kept quiet."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        raise TrackingError(
            f"MLflow at {place} did not take the results ({reason}); the records are safe:"
            " run `tokenmark sync` once it is back"
        ) from error
