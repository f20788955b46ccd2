"""MLflow over SQLite and over a server, and the tracker in memory, keep one contract."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from espalier.core.ports import Tracker
from espalier.testing.memory import MemoryTracker
from espalier.testing.tracker import Look, TrackerContract
from espalier.tracking.mlflow import MLflowTracker
from tests.looking import HttpLook, SqliteLook
from tests.servers import clean_environment


class TestMemoryTracker(TrackerContract):
    @pytest.fixture
    def tracker(self) -> Tracker:
        return MemoryTracker()

    @pytest.fixture
    def look(self, tracker: MemoryTracker) -> Look:
        return lambda run_id: tracker.runs[run_id]


@pytest.mark.xdist_group("mlflow-sqlite")
class TestSqliteTracker(TrackerContract):
    @pytest.fixture
    def tracker(self, sqlite_tracker: MLflowTracker) -> Tracker:
        return sqlite_tracker

    @pytest.fixture
    def look(self, sqlite_repository: Path) -> Look:
        return SqliteLook(sqlite_repository / "mlflow.db")


@pytest.mark.xdist_group("mlflow-server")
class TestServerTracker(TrackerContract):
    @pytest.fixture
    def tracker(self, mlflow_server: str, tmp_path: Path) -> Iterator[Tracker]:
        tracker = MLflowTracker(mlflow_server, tmp_path / ".espalier", tmp_path, None, clean_environment(tmp_path))
        yield tracker
        tracker.release()

    @pytest.fixture
    def look(self, mlflow_server: str) -> Look:
        return HttpLook(mlflow_server)
