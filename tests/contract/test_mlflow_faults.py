"""MLflow that is away, slow, forgetful or in the way: nothing hangs, nothing is lost, nothing is made twice."""

import base64
import contextlib
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from espalier.core.errors import RejectedError, UnavailableError
from espalier.core.model import Artifacts
from espalier.core.ports import Report
from espalier.testing.tracker import ENDED, spool, subjects, trial, version
from espalier.tracking.child import ChildStore
from espalier.tracking.location import runtime_folder
from espalier.tracking.mlflow import MLflowTracker, ui
from tests.looking import HttpLook, SqliteLook
from tests.servers import Relay, clean_environment
from tests.wait import wait_until

SERVER = pytest.mark.xdist_group("mlflow-server")
SQLITE = pytest.mark.xdist_group("mlflow-sqlite")
ONE_OPEN = """
import os, sys
from pathlib import Path
from espalier.testing.tracker import subjects, trial, version
from espalier.tracking.mlflow import MLflowTracker, ui
repository = Path(sys.argv[1])
tracker = MLflowTracker("sqlite:///mlflow.db", repository / ".espalier", repository, None, dict(os.environ))
tracker.start()
for key, run_id in sorted(tracker.open(subjects(version("four/writers"), [trial(0.1), trial(0.2)])).items()):
    print(key, run_id)
"""


@pytest.fixture
def job(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"faults/{request.node.name[:60].strip('_[]')}-{abs(hash(str(tmp_path)))}"


@pytest.fixture
def relayed(relay: Relay, tmp_path: Path) -> Iterator[MLflowTracker]:
    """A tracker that reaches the server through the relay."""
    tracker = MLflowTracker(relay.url, tmp_path / ".espalier", tmp_path, None, clean_environment(tmp_path))
    yield tracker
    tracker.release()


def made(look: HttpLook, job: str) -> list[str]:
    """Return the ids of the runs that are there for ``job``."""
    experiment = look.ask("experiments/get-by-name", experiment_name=f"contract/{job}")["experiment"]
    found = look.send("runs/search", experiment_ids=[experiment["experiment_id"]], max_results=100)
    return [run["info"]["run_id"] for run in found.get("runs", ())]


@SERVER
@pytest.mark.parametrize("fault", ["lose", "refuse", "503", "429"])
def test_a_create_without_an_answer_leaves_one_run(
    relay: Relay, relayed: MLflowTracker, job: str, fault: str, mlflow_server: str
) -> None:
    relay.faults["runs/create"] = [fault]
    (both,) = subjects(version(job), [trial(0.1)], sweep=False)
    run_id = relayed.open([both])[both.key]
    assert relay.faults["runs/create"] == []
    assert made(HttpLook(mlflow_server), job) == [run_id]


@SERVER
@pytest.mark.parametrize("path", ["experiments/create", "runs/log-batch", "runs/update", "runs/search", "artifacts"])
@pytest.mark.parametrize("fault", ["lose", "503"])
def test_any_other_call_is_repeated_without_a_trace(
    relay: Relay, relayed: MLflowTracker, job: str, path: str, fault: str, mlflow_server: str, tmp_path: Path
) -> None:
    relay.faults[path] = [fault]
    (both,) = subjects(version(job), [trial(0.1, attempt=1)], sweep=False)
    run_id = relayed.open([both])[both.key]
    report = Report("succeeded", ended_at=ENDED, metrics=spool(tmp_path, [("loss", 0, 0.5), ("loss", 1, 0.4)]))
    assert relayed.close(both, run_id, report, "succeeded", Artifacts()) == {"loss": 0.4}
    assert relay.faults[path] == []
    shown = HttpLook(mlflow_server)(run_id)
    assert sorted(shown.points) == [("loss", 0, 0.5), ("loss", 1, 0.4)]
    assert made(HttpLook(mlflow_server), job) == [run_id]


@SERVER
def test_of_two_runs_for_a_key_the_elder_stays(relayed: MLflowTracker, job: str, mlflow_server: str) -> None:
    (both,) = subjects(version(job), [trial(0.1)], sweep=False)
    first = relayed.open([both])[both.key]
    look = HttpLook(mlflow_server)
    info = look.ask("runs/get", run_id=first)["run"]["info"]
    tags = [{"key": "espalier.key", "value": both.key}]
    start = int(info["start_time"]) + 1
    look.send("runs/create", experiment_id=info["experiment_id"], start_time=start, tags=tags)
    assert relayed.open([both])[both.key] == first


@SERVER
def test_what_could_not_be_sent_is_sent_later(
    relay: Relay, relayed: MLflowTracker, job: str, mlflow_server: str, tmp_path: Path
) -> None:
    (both,) = subjects(version(job), [trial(0.1, attempt=1)], sweep=False)
    run_id = relayed.open([both])[both.key]
    report = Report("running", metrics=spool(tmp_path, [("loss", 0, 0.5)]))
    relay.faults["runs/"] = ["503"] * 12
    relayed.log(run_id, report, 1)
    with pytest.raises(UnavailableError):
        relayed.close(both, run_id, report, "succeeded", Artifacts())
    relay.faults.clear()
    relayed.log(run_id, report, 1)
    assert HttpLook(mlflow_server)(run_id).metrics == {"loss": 0.5}
    assert relayed.close(both, run_id, report, "succeeded", Artifacts()) == {"loss": 0.5}


@SERVER
def test_nothing_new_asks_nothing(relay: Relay, relayed: MLflowTracker, job: str, tmp_path: Path) -> None:
    (both,) = subjects(version(job), [trial(0.1, attempt=1)], sweep=False)
    run_id = relayed.open([both])[both.key]
    report = Report("running", metrics=spool(tmp_path, [("loss", 0, 0.5)]))
    relayed.log(run_id, report, 1)
    relay.seen.clear()
    relayed.log(run_id, report, 1)
    assert relay.seen == []


@SERVER
def test_many_metrics_and_params_are_split(
    relayed: MLflowTracker, job: str, mlflow_server: str, tmp_path: Path
) -> None:
    made_ = trial(0.1, attempt=1)
    made_ = replace(made_, params={f"layer.{n}": n for n in range(250)})
    (both,) = subjects(version(job), [made_], sweep=False)
    run_id = relayed.open([both])[both.key]
    report = Report("succeeded", metrics=spool(tmp_path, [("loss", n, n / 2) for n in range(2500)]))
    assert relayed.close(both, run_id, report, "succeeded", Artifacts()) == {"loss": 2499 / 2}
    shown = HttpLook(mlflow_server)(run_id)
    assert len(shown.points) == 2500
    assert len(shown.params) == 250


@SERVER
def test_a_param_that_the_program_changed_loses_nothing_else(
    relayed: MLflowTracker, job: str, mlflow_server: str, tmp_path: Path
) -> None:
    (both,) = subjects(version(job), [trial(0.1, attempt=1)], sweep=False)
    run_id = relayed.open([both])[both.key]
    assert both.trial is not None
    other = replace(both, trial=replace(both.trial, params={"hidden": 65, "lr": 0.1, "more": 1}))
    report = Report("succeeded", metrics=spool(tmp_path, [("loss", 0, 0.5)]))
    assert relayed.close(other, run_id, report, "succeeded", Artifacts()) == {"loss": 0.5}
    assert HttpLook(mlflow_server)(run_id).params == {"hidden": "64", "lr": "0.1", "more": "1"}


@SERVER
def test_a_run_deleted_by_hand_stays_deleted(
    relayed: MLflowTracker, job: str, mlflow_server: str, tmp_path: Path
) -> None:
    (both,) = subjects(version(job), [trial(0.1, attempt=1)], sweep=False)
    run_id = relayed.open([both])[both.key]
    HttpLook(mlflow_server).send("runs/delete", run_id=run_id)
    report = Report("running", metrics=spool(tmp_path, [("loss", 0, 0.5)]))
    relayed.log(run_id, report, 1)
    assert relayed.close(both, run_id, report, "succeeded", Artifacts()) == {"loss": 0.5}
    assert made(HttpLook(mlflow_server), job) == []


@SERVER
def test_a_run_that_mlflow_never_heard_of_is_made_again(
    relayed: MLflowTracker, job: str, mlflow_server: str, tmp_path: Path
) -> None:
    (both,) = subjects(version(job), [trial(0.1, attempt=1)], sweep=False)
    report = Report("succeeded", ended_at=ENDED, metrics=spool(tmp_path, [("loss", 0, 0.5)]))
    assert relayed.close(both, "f" * 32, report, "succeeded", Artifacts()) == {"loss": 0.5}
    (run_id,) = made(HttpLook(mlflow_server), job)
    assert HttpLook(mlflow_server)(run_id).status == "FINISHED"


@SERVER
def test_a_deleted_experiment_is_named(relayed: MLflowTracker, job: str, mlflow_server: str) -> None:
    look = HttpLook(mlflow_server)
    made_ = look.send("experiments/create", name=f"contract/{job}")
    look.send("experiments/delete", experiment_id=made_["experiment_id"])
    with pytest.raises(RejectedError, match="was deleted") as caught:
        relayed.open(subjects(version(job), [trial(0.1)]))
    assert "restore" in caught.value.hint


@SERVER
def test_credentials_go_to_the_server_and_nowhere_else(relay: Relay, tmp_path: Path) -> None:
    uri = relay.url.replace("http://", "http://ada:very-secret@")
    environ = clean_environment(tmp_path, MLFLOW_TRACKING_URI=uri)
    tracker = MLflowTracker(uri, tmp_path / ".espalier", tmp_path, None, environ)
    tracker.probe()
    assert tracker.uri == relay.url
    assert relay.headers[0]["Authorization"] == "Basic " + base64.b64encode(b"ada:very-secret").decode()
    relay.faults["experiments"] = ["401"]
    with pytest.raises(UnavailableError) as caught:
        tracker.probe()
    assert "very-secret" not in str(caught.value)
    assert "MLFLOW_TRACKING_USERNAME" in caught.value.hint
    tracker.release()


@SERVER
def test_a_token_is_sent(relay: Relay, tmp_path: Path) -> None:
    environ = clean_environment(tmp_path, MLFLOW_TRACKING_TOKEN="abc")
    tracker = MLflowTracker(relay.url, tmp_path / ".espalier", tmp_path, None, environ)
    tracker.probe()
    assert relay.headers[0]["Authorization"] == "Bearer abc"
    tracker.release()


def test_a_server_that_is_away_is_named_without_its_password(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    tracker = MLflowTracker(
        f"http://ada:very-secret@127.0.0.1:{port}", tmp_path / ".espalier", tmp_path, None, clean_environment(tmp_path)
    )
    with pytest.raises(UnavailableError) as caught:
        tracker.probe()
    assert f"http://127.0.0.1:{port}" in str(caught.value)
    assert "very-secret" not in str(caught.value)
    (both,) = subjects(version("a"), [trial(0.1)], sweep=False)
    with pytest.raises(UnavailableError):
        tracker.open([both])
    tracker.log("f" * 32, Report("running"), 1)
    tracker.release()


def test_a_silent_server_is_not_waited_for(tmp_path: Path, silent_port: int) -> None:
    uri = f"http://127.0.0.1:{silent_port}"
    tracker = MLflowTracker(uri, tmp_path / ".espalier", tmp_path, None, clean_environment(tmp_path))
    with pytest.raises(UnavailableError, match="no answer in time"):
        tracker.probe()
    with pytest.raises(UnavailableError, match="a moment ago"):  # the next call does not wait again
        tracker.open(subjects(version("a"), [trial(0.1)]))
    tracker.release()


def test_what_is_no_mlflow_is_refused(tmp_path: Path, relay: Relay) -> None:
    tracker = MLflowTracker(f"{relay.url}/elsewhere", tmp_path / ".espalier", tmp_path, None, {})
    with pytest.raises((RejectedError, UnavailableError)):
        tracker.probe()
    tracker.release()


# The service


def of_service(tracker: MLflowTracker) -> int:
    """Return the process id of the service that a tracker is connected to."""
    connection = tracker._child._connection
    assert connection is not None
    peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(peer[:4], sys.byteorder)


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@SQLITE
def test_a_killed_service_is_replaced_and_nothing_is_made_twice(
    sqlite_tracker: MLflowTracker, sqlite_repository: Path, job: str, tmp_path: Path
) -> None:
    (both,) = subjects(version(job), [trial(0.1, attempt=1)], sweep=False)
    run_id = sqlite_tracker.open([both])[both.key]
    os.kill(of_service(sqlite_tracker), signal.SIGKILL)
    assert sqlite_tracker.open([both])[both.key] == run_id
    report = Report("succeeded", metrics=spool(tmp_path, [("loss", 0, 0.5)]))
    assert sqlite_tracker.close(both, run_id, report, "succeeded", Artifacts()) == {"loss": 0.5}
    look = SqliteLook(sqlite_repository / "mlflow.db")
    assert look.rows("SELECT count(*) FROM tags WHERE key = 'espalier.key' AND value = ?", both.key) == [(1,)]


@SQLITE
def test_a_death_while_the_database_is_made_leaves_nothing_that_stops_the_next(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    making = [sys.executable, "-c", "import sys; from espalier.tracking.client import prepare; prepare(sys.argv[1])"]
    making.append(f"sqlite:///{database}")

    def half_made() -> bool:
        return sum(file.stat().st_size for file in tmp_path.glob("*mlflow.db*-wal")) > 800_000

    environ = clean_environment(tmp_path)
    with subprocess.Popen(making, stderr=subprocess.DEVNULL, env=environ) as first:
        wait_until(half_made, every_s=0.002)
        first.kill()
    assert not database.exists()
    subprocess.run(making, check=True, stderr=subprocess.DEVNULL, env=environ)
    assert SqliteLook(database).rows("SELECT count(*) FROM runs") == [(0,)]
    assert not list(tmp_path.glob("*-fresh*"))


@SQLITE
def test_a_database_that_was_replaced_is_not_written_to_where_it_was(tmp_path: Path, job: str) -> None:
    environ = clean_environment(tmp_path)
    (both,) = subjects(version(job), [trial(0.1)], sweep=False)
    trackers = [MLflowTracker("sqlite:///mlflow.db", tmp_path / ".espalier", tmp_path, None, environ) for _ in range(2)]
    first = trackers[0].open([both])[both.key]
    for file in tmp_path.glob("mlflow.db*"):
        file.unlink()
    second = trackers[1].open([both])[both.key]
    assert second != first
    assert SqliteLook(tmp_path / "mlflow.db").rows("SELECT run_uuid FROM runs") == [(second,)]
    for tracker in trackers:
        tracker.release()


@SQLITE
def test_a_second_command_finds_the_service_of_the_first(
    sqlite_tracker: MLflowTracker, sqlite_repository: Path, job: str
) -> None:
    sqlite_tracker.open(subjects(version(job), [trial(0.1)]))
    environ = clean_environment(sqlite_repository)
    other = MLflowTracker("sqlite:///mlflow.db", sqlite_repository / ".espalier", sqlite_repository, None, environ)
    other.open(subjects(version(job), [trial(0.1)]))
    assert of_service(other) == of_service(sqlite_tracker)
    other.release()


@SQLITE
def test_only_its_user_reaches_the_service(sqlite_tracker: MLflowTracker, job: str) -> None:
    sqlite_tracker.open(subjects(version(job), [trial(0.1)]))
    place = sqlite_tracker._child._socket
    assert place.stat().st_mode & 0o077 == 0
    assert place.parent == runtime_folder()
    assert place.parent.stat().st_mode & 0o077 == 0
    assert len(os.fsencode(place)) <= 103


@SQLITE
def test_artifacts_of_a_database_lie_beside_it(
    sqlite_tracker: MLflowTracker, sqlite_repository: Path, job: str, tmp_path: Path
) -> None:
    (both,) = subjects(version(job), [trial(0.1, attempt=1)], sweep=False)
    run_id = sqlite_tracker.open([both])[both.key]
    output = tmp_path / "out"
    (output / "sub").mkdir(parents=True)
    (output / "sub" / "model.txt").write_text("weights")
    (output / "big.bin").write_bytes(b"0" * 2000)
    (output / "away").symlink_to("/etc/hostname")
    report = Report("succeeded", output=str(output), environment={"python": "3.11.7"})
    sqlite_tracker.close(both, run_id, report, "succeeded", Artifacts(max_mb=0.001))
    shown = SqliteLook(sqlite_repository / "mlflow.db")(run_id)
    assert set(shown.artifacts) == {
        "espalier/diff.md",
        "espalier/left-out.txt",
        "espalier/packages.txt",
        "espalier/spec.yaml",
        "sub/model.txt",
    }
    assert "away: a link" in shown.artifacts["espalier/left-out.txt"]
    assert "big.bin: 0.0 MB" in shown.artifacts["espalier/left-out.txt"]
    location = SqliteLook(sqlite_repository / "mlflow.db").rows(
        "SELECT artifact_uri FROM runs WHERE run_uuid=?", run_id
    )
    assert Path(location[0][0]).is_relative_to(sqlite_repository / "mlartifacts")


@SQLITE
def test_four_commands_may_meet_a_fresh_database(tmp_path: Path) -> None:
    environ = clean_environment(tmp_path)
    commands = [
        subprocess.Popen(
            [sys.executable, "-c", ONE_OPEN, str(tmp_path)], env=environ, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    told = {command.communicate(timeout=300)[0] for command in commands}
    assert [command.returncode for command in commands] == [0] * 4
    assert len(told) == 1
    look = SqliteLook(tmp_path / "mlflow.db")
    assert look.rows("SELECT count(*) FROM tags WHERE key = 'espalier.key'") == [(3,)]
    assert look.rows("PRAGMA journal_mode") == [("wal",)]
    # who was it? its socket being gone ends it
    tracker = MLflowTracker("sqlite:///mlflow.db", tmp_path / ".espalier", tmp_path, None, environ)
    tracker.open(subjects(version("four/writers"), [trial(0.1)]))
    pid = of_service(tracker)
    tracker._child._socket.unlink()
    wait_until(lambda: not alive(pid), within_s=30)
    tracker.release()


def test_a_database_that_is_none_cannot_be_probed(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("this is no database, but long enough to look at" * 100)
    tracker = MLflowTracker("sqlite:///mlflow.db", tmp_path / ".espalier", tmp_path, None, {})
    with pytest.raises(UnavailableError, match="not a database"):
        tracker.probe()


@SQLITE
def test_mlflows_own_ui_shows_the_artifacts(
    sqlite_tracker: MLflowTracker, sqlite_repository: Path, job: str, tmp_path: Path
) -> None:
    (both,) = subjects(version(job), [trial(0.1, attempt=1)], sweep=False)
    run_id = sqlite_tracker.open([both])[both.key]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    argv, link = ui("sqlite:///mlflow.db", sqlite_repository, None, port)
    log = (tmp_path / "log").open("wb")
    server = subprocess.Popen(argv, env=clean_environment(tmp_path), start_new_session=True, stdout=log, stderr=log)
    try:
        base = link.partition("/#")[0]
        wait_until(lambda: answered(f"{base}/health"), within_s=120)
        shown = answered(f"{base}/get-artifact?path=espalier/spec.yaml&run_uuid={run_id}")
        assert shown.startswith(b"command:")
        assert answered(link)
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
        log.close()


def answered(url: str) -> bytes:
    """Return what is at ``url``, nothing when nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            content: bytes = answer.read()
            return content
    except urllib.error.URLError:
        return b""


@SQLITE
def test_a_service_that_nobody_needs_ends(tmp_path: Path, migrated_database: Path) -> None:
    shutil.copyfile(migrated_database, tmp_path / "mlflow.db")
    store = ChildStore(f"sqlite:///{tmp_path}/mlflow.db", "shown", tmp_path, clean_environment(tmp_path), idle_s=2.0)
    store.start()
    store.probe()
    connection = store._connection
    assert connection is not None
    pid = int.from_bytes(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], sys.byteorder)
    assert alive(pid)
    store.close()
    wait_until(lambda: not alive(pid))
    assert not store._socket.exists()


@SQLITE
def test_other_credentials_have_a_service_of_their_own(tmp_path: Path) -> None:
    stores = [
        ChildStore("sqlite:////m.db", "shown", tmp_path, {"AWS_PROFILE": profile, "TERM": term})
        for profile, term in (("a", "x"), ("b", "x"), ("a", "y"))
    ]
    assert stores[0]._socket != stores[1]._socket
    assert stores[0]._socket == stores[2]._socket


@SERVER
def test_what_a_failed_attempt_left_while_mlflow_was_away_is_owed(
    relay: Relay, relayed: MLflowTracker, job: str, mlflow_server: str, tmp_path: Path
) -> None:
    (both,) = subjects(version(job), [trial(0.1, attempt=1)], sweep=False)
    run_id = relayed.open([both])[both.key]
    for attempt in (1, 2):
        (tmp_path / f"{attempt}.log").write_text(f"attempt {attempt}\n")
    first = Report("failed", metrics=spool(tmp_path, [("loss", 0, 0.5)], "1"), log=str(tmp_path / "1.log"))
    relay.faults["runs/"] = ["503"] * 3
    relayed.log(run_id, first, 1)  # MLflow is away, and nobody closes an attempt that another one follows
    relay.faults.clear()
    assert both.trial is not None
    again = replace(both, trial=replace(both.trial, attempt=2))
    second = Report("succeeded", metrics=spool(tmp_path, [("loss", 1, 0.4)], "2"), log=str(tmp_path / "2.log"))
    assert relayed.close(again, run_id, second, "succeeded", Artifacts()) == {"loss": 0.4}
    shown = HttpLook(mlflow_server)(run_id)
    assert sorted(shown.points) == [("loss", 0, 0.5), ("loss", 1, 0.4)]
    assert shown.artifacts["espalier/log.txt"] == "attempt 1\n"
    assert shown.artifacts["espalier/log-2.txt"] == "attempt 2\n"


@SERVER
def test_an_artifact_that_is_refused_is_named_and_the_end_is_shown(
    relay: Relay, relayed: MLflowTracker, job: str, mlflow_server: str, tmp_path: Path
) -> None:
    (both,) = subjects(version(job), [trial(0.1, attempt=1)], sweep=False)
    run_id = relayed.open([both])[both.key]
    output = tmp_path / "out"
    output.mkdir()
    for name in ("good.txt", "large.txt"):
        (output / name).write_text(name)
    relay.faults["large.txt"] = ["413"]
    relayed.close(both, run_id, Report("succeeded", output=str(output)), "succeeded", Artifacts())
    shown = HttpLook(mlflow_server)(run_id)
    assert shown.status == "FINISHED"
    assert shown.artifacts["good.txt"] == "good.txt"
    assert shown.artifacts["espalier/left-out.txt"].startswith("large.txt: ")


@SERVER
def test_plug_ins_of_the_client_are_used_in_the_service(
    relay: Relay, mlflow_server: str, job: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plug = tmp_path / "plug"
    (plug / "plug-1.dist-info").mkdir(parents=True)
    (plug / "plug-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: plug\nVersion: 1\n")
    (plug / "plug-1.dist-info" / "entry_points.txt").write_text("[mlflow.request_header_provider]\nus = plug:Ours\n")
    (plug / "plug.py").write_text(
        "from mlflow.tracking.request_header.abstract_request_header_provider import RequestHeaderProvider\n"
        "class Ours(RequestHeaderProvider):\n"
        "    def in_context(self): return True\n"
        "    def request_headers(self): return {'X-Company': 'espalier'}\n"
    )
    monkeypatch.syspath_prepend(plug)
    environ = clean_environment(tmp_path)
    environ["PYTHONPATH"] += os.pathsep + str(plug)
    tracker = MLflowTracker(relay.url, tmp_path / ".espalier", tmp_path, None, environ)
    (both,) = subjects(version(job), [trial(0.1, attempt=1)], sweep=False)
    run_id = tracker.open([both])[both.key]
    report = Report("succeeded", ended_at=ENDED, metrics=spool(tmp_path, [("loss", 0, "NaN"), ("loss", 1, 0.5)]))
    assert tracker.close(both, run_id, report, "succeeded", Artifacts()) == {"loss": 0.5}
    assert "espalier/spec.yaml" in HttpLook(mlflow_server)(run_id).artifacts
    assert all(headers.get("X-Company") == "espalier" for headers in relay.headers)
    tracker.release()


@SQLITE
def test_a_database_of_another_release_is_named(tmp_path: Path, migrated_database: Path) -> None:
    shutil.copyfile(migrated_database, tmp_path / "mlflow.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
        database.commit()
    environ = clean_environment(tmp_path)
    tracker = MLflowTracker("sqlite:///mlflow.db", tmp_path / ".espalier", tmp_path, None, environ)
    with pytest.raises(RejectedError) as caught:
        tracker.open(subjects(version("a"), [trial(0.1)]))
    assert "mlflow db upgrade" in caught.value.hint
    tracker.release()
