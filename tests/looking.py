"""Looking at MLflow runs without any code of ours between: through SQL, and through the server's REST API."""

import contextlib
import json
import sqlite3
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from espalier.testing.memory import Shown


class SqliteLook:
    """Runs in a database file, artifacts in folders of this machine."""

    def __init__(self, database: Path) -> None:
        self._database = database

    def __call__(self, run_id: str) -> Shown:
        with contextlib.closing(sqlite3.connect(self._database)) as base:
            name, status, uri = base.execute(
                "SELECT name, status, artifact_uri FROM runs WHERE run_uuid = ?", (run_id,)
            ).fetchone()
            tags = dict(base.execute("SELECT key, value FROM tags WHERE run_uuid = ?", (run_id,)))
            params = dict(base.execute("SELECT key, value FROM params WHERE run_uuid = ?", (run_id,)))
            last = dict(base.execute("SELECT key, value FROM latest_metrics WHERE run_uuid = ?", (run_id,)))
            points = base.execute("SELECT key, step, value FROM metrics WHERE run_uuid = ?", (run_id,)).fetchall()
        folder = Path(uri)
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        return Shown(
            name=name,
            status=status,
            parent=tags.get("mlflow.parentRunId"),
            tags=tags,
            params=params,
            metrics=last,
            points=[(key, step, value) for key, step, value in points],
            artifacts={file.relative_to(folder).as_posix(): file.read_text("utf-8", "replace") for file in files},
        )

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Return what the database says to ``query``."""
        with contextlib.closing(sqlite3.connect(self._database)) as base:
            return base.execute(query, values).fetchall()


class HttpLook:
    """Runs and artifacts of a tracking server."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __call__(self, run_id: str) -> Shown:
        run = self.ask("runs/get", run_id=run_id)["run"]
        tags = {tag["key"]: tag["value"] for tag in run["data"].get("tags", ())}
        metrics = {metric["key"]: metric["value"] for metric in run["data"].get("metrics", ())}
        points = [
            (point["key"], int(point.get("step", 0)), point["value"])
            for key in metrics
            for point in self.ask("metrics/get-history", run_id=run_id, metric_key=key)["metrics"]
        ]
        inside = run["info"]["artifact_uri"].removeprefix("mlflow-artifacts:/")
        return Shown(
            name=run["info"]["run_name"],
            status=run["info"]["status"],
            parent=tags.get("mlflow.parentRunId"),
            tags=tags,
            params={param["key"]: param["value"] for param in run["data"].get("params", ())},
            metrics=metrics,
            points=points,
            artifacts=dict(sorted(self._files(run_id, inside, "").items())),
        )

    def ask(self, endpoint: str, **values: str) -> Any:
        """Return the answer of a GET endpoint."""
        return json.loads(self._read(f"/api/2.0/mlflow/{endpoint}?{urllib.parse.urlencode(values)}"))

    def send(self, endpoint: str, **values: Any) -> Any:
        """Return the answer of a POST endpoint."""
        request = urllib.request.Request(
            f"{self._url}/api/2.0/mlflow/{endpoint}",
            json.dumps(values).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or b"{}")

    def _files(self, run_id: str, inside: str, below: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for file in self.ask("artifacts/list", run_id=run_id, path=below).get("files", ()):
            path = file["path"]
            if file["is_dir"]:
                found |= self._files(run_id, inside, path)
            else:
                content = self._read(f"/api/2.0/mlflow-artifacts/artifacts/{inside}/{urllib.parse.quote(path)}")
                found[path] = content.decode("utf-8", "replace")
        return found

    def _read(self, path: str) -> bytes:
        with urllib.request.urlopen(self._url + path, timeout=30) as answer:
            content: bytes = answer.read()
            return content
