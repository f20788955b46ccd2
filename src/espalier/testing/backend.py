"""What every backend promises, as tests to subclass. Never knows which backend it tests.

``BackendContract`` holds for any ``Backend``; ``ProgramContract`` adds what a program sees that really runs.
A subclass gives a fixture ``backend``, and overrides ``ended`` and ``running`` where time passes by hand.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from espalier.core.model import FINAL, Json, Program, Resources, Spec
from espalier.core.names import attempt_key
from espalier.core.ports import Backend, Launch, Report

LEDGER_ID = "11111111-2222-3333-4444-555555555555"
WITHIN_S = 60.0

SUCCEEDS = "pass"
FAILS = "import sys; print('it broke', file=sys.stderr); sys.exit(3)"
RUNS_ON = "import time; print('started', flush=True); time.sleep(600)"


def a_launch(
    script: str = SUCCEEDS,
    *,
    name: str = "t",
    attempt: int = 1,
    params: Mapping[str, Json] | None = None,
    spec: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Launch:
    """Return a launch of a Python ``script``; ``name`` tells trials apart."""
    whole = Spec(command=("python", "-c", script), params=dict(params or {}), **(spec or {}))
    return Launch(
        **{
            "ledger_id": LEDGER_ID,
            "project": "digits",
            "job": "digits/mlp",
            "line": None,
            "version": 3,
            "trial": hashlib.sha256(name.encode()).hexdigest()[:12],
            "attempt": attempt,
            "commit": "c" * 40,
            "spec": whole,
            "params": whole.params,
            "program": Program(whole.command, whole.env, whole.data),
            **fields,
        }
    )


def key_of(launch: Launch) -> str:
    """Return the key that the engine gives to a launch."""
    return attempt_key(launch.ledger_id, launch.job, launch.line, launch.version, launch.trial, launch.attempt)


def until(report: Callable[[], Report], wanted: Callable[[Report], bool]) -> Report:
    """Return the first report that is wanted; fail with the last one."""
    end = time.monotonic() + WITHIN_S
    while not wanted(seen := report()):
        assert time.monotonic() < end, f"it stayed {seen}"
        time.sleep(0.01)
    return seen


class BackendContract:
    """Subclass it with a ``backend`` fixture."""

    def ended(self, backend: Backend, handle: str) -> Report:
        """Return the report of a trial that is over."""
        return until(lambda: backend.status([handle])[handle], lambda report: report.state in FINAL)

    def running(self, backend: Backend, handle: str) -> Report:
        """Return the report of a trial whose program runs."""
        return until(
            lambda: backend.status([handle])[handle],
            lambda report: report.state == "running" and "started" in backend.logs(handle),
        )

    def send(self, backend: Backend, launch: Launch) -> str:
        return backend.submit(key_of(launch), launch)

    def test_a_trial_succeeds_when_its_program_does(self, backend: Backend) -> None:
        handle = self.send(backend, a_launch())
        assert backend.status([handle])[handle].state in ("queued", "running", "succeeded")
        report = self.ended(backend, handle)
        assert (report.state, report.exit_code) == ("succeeded", 0)
        assert report.started_at
        assert report.ended_at
        assert report.started_at <= report.ended_at

    def test_a_trial_fails_with_the_programs_exit_code(self, backend: Backend) -> None:
        report = self.ended(backend, self.send(backend, a_launch(FAILS)))
        assert (report.state, report.exit_code) == ("failed", 3)

    def test_two_submits_under_one_key_run_once(self, backend: Backend) -> None:
        launch = a_launch()
        first, second = self.send(backend, launch), self.send(backend, launch)
        assert list(backend.find([key_of(launch)])[key_of(launch)]) == [first] == [second]

    def test_a_submit_after_the_end_adopts_it(self, backend: Backend) -> None:
        handle = self.send(backend, a_launch(FAILS))
        before = self.ended(backend, handle)
        assert self.send(backend, a_launch(FAILS)) == handle
        assert backend.status([handle])[handle] == before

    def test_a_handle_nobody_gave_out_is_unknown(self, backend: Backend) -> None:
        assert backend.status(["nobodys"])["nobodys"].state == "unknown"
        assert list(backend.logs("nobodys")) == []
        backend.cancel("nobodys")

    def test_nothing_asked_is_nothing_answered(self, backend: Backend) -> None:
        assert backend.status([]) == {}
        assert backend.find([]) == {}

    def test_many_are_asked_about_at_once(self, backend: Backend) -> None:
        launches = [a_launch(SUCCEEDS, name="a"), a_launch(FAILS, name="b")]
        good, bad = (self.send(backend, launch) for launch in launches)
        for handle in (good, bad):
            self.ended(backend, handle)
        reports = backend.status([bad, "nobodys", good])
        assert {handle: report.state for handle, report in reports.items()} == {
            bad: "failed",
            "nobodys": "unknown",
            good: "succeeded",
        }

    def test_find_knows_only_what_was_submitted(self, backend: Backend) -> None:
        launch = a_launch()
        handle = self.send(backend, launch)
        assert dict(backend.find(["f" * 40, key_of(launch)])) == {key_of(launch): [handle]}

    def test_a_running_trial_is_cancelled(self, backend: Backend) -> None:
        handle = self.send(backend, a_launch(RUNS_ON))
        self.running(backend, handle)
        backend.cancel(handle)
        backend.cancel(handle)
        assert self.ended(backend, handle).state == "cancelled"

    def test_cancelling_what_is_over_changes_nothing(self, backend: Backend) -> None:
        handle = self.send(backend, a_launch())
        before = self.ended(backend, handle)
        backend.cancel(handle)
        assert backend.status([handle])[handle] == before


SHOWS = "import json, os; print(json.dumps(dict(os.environ, CWD=os.getcwd(), ARGV=__import__('sys').argv[1:])))"


class ProgramContract(BackendContract):
    """For backends whose programs really run, and whose paths can be read here."""

    def shown(self, backend: Backend, launch: Launch) -> dict[str, Any]:
        """Return what a program found: its environment, its folder (CWD) and arguments (ARGV)."""
        handle = self.send(backend, launch)
        report = self.ended(backend, handle)
        assert report.state == "succeeded", (report, list(backend.logs(handle)))
        lines = [line for line in backend.logs(handle) if line.startswith("{")]
        return dict(json.loads(lines[-1]))

    def test_a_program_is_told_what_it_is_an_attempt_of(self, backend: Backend) -> None:
        seen = self.shown(backend, a_launch(SHOWS, variables={"MLFLOW_RUN_ID": "r1"}))
        said = {name: seen[f"ESPALIER_{name}"] for name in ("JOB", "LINE", "VERSION", "ATTEMPT", "COMMIT")}
        assert said == {"JOB": "digits/mlp", "LINE": "", "VERSION": "3", "ATTEMPT": "1", "COMMIT": "c" * 40}
        assert len(seen["ESPALIER_TRIAL"]) == 12
        assert seen["MLFLOW_RUN_ID"] == "r1"
        assert (seen["RANK"], seen["WORLD_SIZE"]) == ("0", "1")

    def test_parameters_are_passed_as_flags_and_as_a_nested_file(self, backend: Backend) -> None:
        script = SHOWS + "; print(open(os.environ['ESPALIER_PARAMS']).read())"
        handle = self.send(backend, a_launch(script, params={"optim.lr": 1e-05, "sizes": [64, 64], "none": None}))
        self.ended(backend, handle)
        environment, params = (json.loads(line) for line in list(backend.logs(handle))[-2:])
        assert environment["ARGV"] == ["--optim.lr=1e-05", "--sizes=[64,64]"]
        assert params == {"optim": {"lr": 1e-05}, "sizes": [64, 64], "none": None}

    def test_late_values_are_filled_in_when_it_starts(self, backend: Backend) -> None:
        launch = a_launch(SHOWS + "; import sys; sys.exit('${espalier.trial}' != os.environ['ESPALIER_TRIAL'])")
        env = {"WHERE": "${espalier.output_dir}/x", "WHO": "${espalier.job}"}
        launch = replace(launch, program=replace(launch.program, env=env))
        seen = self.shown(backend, launch)
        assert seen["WHERE"] == seen["ESPALIER_OUTPUT_DIR"] + "/x"
        assert seen["WHO"] == "digits/mlp"

    def test_each_attempt_has_an_empty_output_folder_and_the_trials_checkpoint_folder(self, backend: Backend) -> None:
        script = (
            "import os, json, pathlib as p; out = p.Path(os.environ['ESPALIER_OUTPUT_DIR']);"
            " kept = p.Path(os.environ['ESPALIER_CHECKPOINT_DIR']);"
            " found = [len(list(out.iterdir())), sorted(f.name for f in kept.iterdir())];"
            " (out / 'x').touch(); (kept / os.environ['ESPALIER_ATTEMPT']).touch(); print(json.dumps({'found': found}))"
        )
        assert self.shown(backend, a_launch(script, attempt=1))["found"] == [0, []]
        assert self.shown(backend, a_launch(script, attempt=2))["found"] == [0, ["1"]]

    def test_output_and_log_are_reported(self, backend: Backend) -> None:
        script = (
            "import os, sys; print('out'); print('err', file=sys.stderr);"
            "open(os.environ['ESPALIER_OUTPUT_DIR'] + '/model', 'w').write('weights')"
        )
        handle = self.send(backend, a_launch(script))
        report = self.ended(backend, handle)
        assert report.output
        assert report.log
        assert Path(report.output, "model").read_text() == "weights"
        assert (
            {"out", "err"} <= set(Path(report.log).read_text().split()) == set(" ".join(backend.logs(handle)).split())
        )

    def test_metrics_are_reported_while_it_runs(self, backend: Backend) -> None:
        script = (
            "import os, time; f = open(os.environ['ESPALIER_OUTPUT_DIR'] + '/metrics.jsonl', 'w');"
            'print(\'{"loss": 0.5}\', file=f, flush=True); print("started", flush=True); time.sleep(600)'
        )
        handle = self.send(backend, a_launch(script))
        self.running(backend, handle)
        report = until(
            lambda: backend.status([handle])[handle],
            lambda report: bool(report.metrics) and Path(str(report.metrics)).stat().st_size > 0,
        )
        assert report.state == "running"
        (line,) = Path(str(report.metrics)).read_text().splitlines()
        entry = json.loads(line)
        assert (entry["key"], entry["value"], entry["step"]) == ("loss", 0.5, 0)
        backend.cancel(handle)
        self.ended(backend, handle)

    def test_a_failed_trial_says_its_last_line(self, backend: Backend) -> None:
        assert self.ended(backend, self.send(backend, a_launch(FAILS))).message == "it broke"

    def test_a_program_that_is_killed_fails_and_says_by_what(self, backend: Backend) -> None:
        script = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
        report = self.ended(backend, self.send(backend, a_launch(script)))
        assert (report.state, report.exit_code, report.message) == ("failed", 139, "killed by SIGSEGV")

    def test_a_program_that_is_not_there_fails_and_is_named(self, backend: Backend) -> None:
        launch = a_launch()
        launch = replace(launch, program=replace(launch.program, command=("no-such-program",)))
        report = self.ended(backend, self.send(backend, launch))
        assert (report.state, report.exit_code) == ("failed", 127)
        assert "no-such-program" in str(report.message)

    def test_a_trial_out_of_time_fails_after_its_grace(self, backend: Backend) -> None:
        script = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
        spec = {"resources": Resources(time_limit_s=0.5), "grace_s": 0.1}
        report = self.ended(backend, self.send(backend, a_launch(script, spec=spec)))
        assert (report.state, report.message) == ("failed", "out of time: resources.time_limit_s is 0.5")
        assert report.exit_code == 137

    def test_a_cancelled_program_is_told_and_has_its_grace(self, backend: Backend) -> None:
        script = (
            "import signal, sys, time\n"
            "def end(*_): print('saved', flush=True); sys.exit(0)\n"
            "signal.signal(signal.SIGTERM, end); print('started', flush=True); time.sleep(600)"
        )
        handle = self.send(backend, a_launch(script))
        self.running(backend, handle)
        backend.cancel(handle)
        assert self.ended(backend, handle).state == "cancelled"
        assert "saved" in list(backend.logs(handle))
