"""Real servers for tests, one of each in a run, shared by the workers of pytest-xdist. Only loopback."""

import contextlib
import fcntl
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from espalier.tracking.mlflow import MLflowTracker
from tests.wait import wait_until

_MIGRATE = "import sys; from espalier.tracking.client import prepare; prepare(sys.argv[1])"
_CLEAN = ("PATH", "LANG", "LC_ALL", "TMPDIR", "XDG_RUNTIME_DIR", "PYTHONPATH")


def clean_environment(home: Path, **more: str) -> dict[str, str]:
    """Return an environment that holds nothing of the person who runs the tests."""
    kept = {name: os.environ[name] for name in _CLEAN if name in os.environ}
    source = str(Path(__file__).resolve().parent.parent / "src")
    path = os.pathsep.join([source, *filter(None, [kept.get("PYTHONPATH")])])
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    return kept | quiet | {"HOME": str(home), "PYTHONPATH": path} | more


@dataclass
class MlflowServer:
    """A real ``mlflow server`` on a database of its own; ``stop`` and ``start`` keep address and content."""

    folder: Path
    port: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers; a port that somebody else took meanwhile is chosen anew."""
        for _ in range(5):
            self.port = self.port or _free_port()
            with (self.folder / "server.log").open("ab") as log:
                self.process = subprocess.Popen(
                    [
                        *(sys.executable, "-m", "mlflow", "server", "--workers", "1"),
                        *("--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}"),
                        *("--artifacts-destination", str(self.folder / "artifacts")),
                        *("--host", "127.0.0.1", "--port", str(self.port)),
                    ],
                    cwd=self.folder,
                    env=clean_environment(self.folder),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            wait_until(lambda: self._answers() or self._ended(), within_s=180)
            if self._answers():
                return
            self.port = 0
        raise AssertionError((self.folder / "server.log").read_text())

    def stop(self) -> None:
        """End it with all its processes."""
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def _ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of one test run share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def migrated_database(run_folder: Path) -> Path:
    """An empty MLflow database, migrated once; to be copied."""
    file = run_folder / "template" / "mlflow.db"
    with _alone(run_folder / "template.lock"):
        if not file.exists():
            made = file.with_name("making.db")
            made.parent.mkdir(exist_ok=True)
            subprocess.run(
                [sys.executable, "-c", _MIGRATE, f"sqlite:///{made}"], check=True, env=clean_environment(run_folder)
            )
            made.rename(file)
    return file


@pytest.fixture(scope="session")
def mlflow_server(run_folder: Path, migrated_database: Path) -> Iterator[str]:
    """The address of the one MLflow server of this run; whoever leaves last ends it."""
    folder = run_folder / "mlflow-server"
    noted = folder / "server.json"
    server = MlflowServer(folder)
    with _alone(run_folder / "server.lock"):
        folder.mkdir(exist_ok=True)
        if noted.exists():
            known = json.loads(noted.read_text())
        else:
            shutil.copyfile(migrated_database, folder / "mlflow.db")
            server.start()
            assert server.process is not None
            known = {"url": server.url, "pid": server.process.pid, "users": 0}
        noted.write_text(json.dumps(known | {"users": known["users"] + 1}))
    yield known["url"]
    with _alone(run_folder / "server.lock"):
        known = json.loads(noted.read_text())
        known["users"] -= 1
        if known["users"]:
            noted.write_text(json.dumps(known))
        else:
            noted.unlink()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(known["pid"], signal.SIGKILL)
                if server.process:
                    server.process.wait()
        if server.process and server.process.returncode is None:
            server.process.returncode = 0  # it goes on for another worker, which ends it


@pytest.fixture(scope="session")
def sqlite_repository(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> Path:
    """A folder with a migrated database, for tests that keep apart by their jobs' names."""
    folder = tmp_path_factory.mktemp("sqlite")
    shutil.copyfile(migrated_database, folder / "mlflow.db")
    return folder


@pytest.fixture(scope="session")
def sqlite_tracker(sqlite_repository: Path) -> Iterator[MLflowTracker]:
    """The tracker on it; its service ends soon after the last test."""
    environ = clean_environment(sqlite_repository)
    tracker = MLflowTracker("sqlite:///mlflow.db", sqlite_repository / ".espalier", sqlite_repository, None, environ)
    yield tracker
    tracker.release()


@dataclass
class Relay:
    """Stands between a client and a server, and does harm to order.

    ``faults`` maps a part of a path to what happens to its next requests: ``lose`` (acted upon, the answer is
    dropped), ``refuse`` (dropped before), or a status such as ``503``. ``seen`` lists method and path of each.
    """

    upstream: str
    faults: dict[str, list[str]] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    def fault(self, path: str) -> str:
        """Return what is to happen to a request for ``path``, and count it as done."""
        for part, orders in self.faults.items():
            if part in path and orders:
                return orders.pop(0)
        return ""


@pytest.fixture
def relay(mlflow_server: str) -> Iterator[Relay]:
    """A relay before the MLflow server."""
    order = Relay(mlflow_server)
    with _relayed(order):
        yield order


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        yield listener.getsockname()[1]


@contextlib.contextmanager
def _relayed(order: Relay) -> Iterator[None]:
    parts = urlsplit(order.upstream)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass_on(self) -> None:
            order.seen.append(f"{self.command} {self.path.partition('?')[0]}")
            order.headers.append(dict(self.headers))
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            fault = order.fault(self.path)
            if fault == "refuse":
                self.close_connection = True
                return
            if fault.isdigit():
                code = "INVALID_PARAMETER_VALUE" if fault in ("400", "413") else "TEMPORARILY_UNAVAILABLE"
                self._answer(int(fault), json.dumps({"error_code": code, "message": "ordered"}).encode())
                return
            upstream = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
            sent = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection")}
            upstream.request(self.command, self.path, body, sent)
            answer = upstream.getresponse()
            content = answer.read()
            upstream.close()
            if fault == "lose":
                self.close_connection = True
                return
            self._answer(answer.status, content)

        do_GET = do_POST = do_PUT = _pass_on

        def _answer(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    order.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def _alone(file: Path) -> Iterator[None]:
    with file.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
