"""What the end-to-end tests share: a server that forks runs, prepared data, and one finished run."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import JPEG, MASKGIT, TOME, TOPK, Place, Server, write_suite


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs are forked from a process that has imported torch."""
    for item in items:
        if Path(__file__).parent in item.path.parents and not hasattr(os, "fork"):
            item.add_marker(pytest.mark.skip(reason="runs are forked and killed by signals, as POSIX has them"))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server.start(tmp_path_factory.mktemp("server"))
    yield running
    running.stop()


@pytest.fixture(scope="session")
def shared(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `finished`, what one undisturbed run of four methods left. To be read only."""
    folder = tmp_path_factory.mktemp("shared")
    place = Place(server, folder, folder / "data")
    suite = write_suite(folder / "small.toml", JPEG, MASKGIT, TOME, TOPK)
    place.run(suite, "--page").well()
    return folder


@pytest.fixture
def finished(server: Server, shared: Path) -> Place:
    """The undisturbed run. To be read only."""
    return Place(server, shared, shared / "data")


@pytest.fixture(scope="session")
def empty_store(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new MLflow store without runs: making one takes seconds."""
    folder = tmp_path_factory.mktemp("store")
    Place(server, folder, folder / "data").call("sync").well()
    return folder / "results" / "mlflow.db"


@pytest.fixture
def place(server: Server, shared: Path, empty_store: Path, tmp_path: Path) -> Place:
    """An empty place of one's own, with the shared data and an MLflow store without runs."""
    (tmp_path / "results").mkdir()
    shutil.copy(empty_store, tmp_path / "results")
    return Place(server, tmp_path, shared / "data")
