"""Plans and records that the golden texts are of: each row of the decision table, each state."""

from dataclasses import replace

from espalier.core.content import Change, diff
from espalier.core.events import Observed, fold
from espalier.core.model import Job, JobError, Objective, Sweep
from espalier.core.plan import Action, Plan, TrialPlan
from espalier.core.record import Snapshot
from tests.builders import a_job, recorded

COMMIT, TIP = "c" * 40, "77e01b9" + "0" * 33
NOW = "2026-01-02T05:04:05Z"
STARTED, ENDED = "2026-01-02T03:04:10.000Z", "2026-01-02T03:14:10.000Z"
HOSTILE = "@everyone | `x` <img src=x onerror=1> [a](http://evil.example) **b** \x1b[31m ![i](x) $(rm)"


def full_plan() -> Plan:
    """One action of each kind, an error, every kind of change."""
    code = Change("code.train.py", "a" * 40, "b" * 40)
    changes = (
        code,
        Change("code.new.py", None, "d" * 40 + " 100755"),
        Change("params.hidden", 64, 96, "conf/job/digits/mlp.yaml:12"),
        Change("params.optim.lr", 0.001, 1e-05, "conf/optim/adam.yaml:3"),
        Change("params.layers", None, [64, 64], "conf/job/digits/mlp.yaml:13"),
    )
    actions = (
        Action(
            "revise",
            "bert/base",
            8,
            7,
            "1" * 64,
            reason="params.lr changed",
            changes=(Change("params.lr", 0.0001, 0.0003, "conf/optim/adamw.yaml:3"),),
            trials=TrialPlan(total=1, run=1),
            notes=("parent v7: succeeded, acc 0.871",),
        ),
        Action("create", "digits/cnn", 1, None, "2" * 64, reason="new job", trials=TrialPlan(total=200, run=200)),
        Action(
            "revise",
            "digits/mlp",
            4,
            3,
            "3" * 64,
            reason="code.new.py, code.train.py and 3 more changed",
            changes=changes,
            trials=TrialPlan(total=12, reused=8, waiting=1, run=3, cancel=2),
            notes=("same spec as v2", "parent v3 is still running"),
        ),
        Action("keep", "digits/linear", 2, 1, "4" * 64, reason="up to date", trials=TrialPlan(total=1)),
        Action("retire", "old/resnet", 5, 4, "5" * 64, reason="removed from the config", trials=TrialPlan(total=1)),
        Action(
            "resume",
            "vit/big",
            2,
            1,
            "6" * 64,
            reason="interrupted: 3 trials not sent yet",
            trials=TrialPlan(total=5, run=3),
        ),
        Action(
            "retry",
            "vit/small",
            1,
            None,
            "7" * 64,
            reason="failed (exit code 1, out of memory); attempts left",
            trials=TrialPlan(total=1, run=1),
        ),
    )
    errors = (JobError("digits/gru", "'hiden' is not in the schema", "use hidden", "conf/job/digits/gru.yaml", 7),)
    return Plan(COMMIT, TIP, "11111111-2222-3333-4444-555555555555", actions, errors)


def quiet_plan(jobs: int = 3) -> Plan:
    """Nothing to do."""
    actions = tuple(Action("keep", f"job{n:05}", 1, None, f"{n:064x}", reason="up to date") for n in range(jobs))
    return Plan(COMMIT, TIP, "11111111-2222-3333-4444-555555555555", actions)


def hostile_plan(jobs: int = 1, changes: int = 3) -> Plan:
    """What a pull request may put into names of keys, values and errors."""
    leaves = tuple(
        Change(f"params.{HOSTILE}{n}", HOSTILE, f"{HOSTILE}\n```\n</details>", "conf/a|b.yaml:1")
        for n in range(changes)
    )
    actions = tuple(
        Action("revise", f"job{n:05}", 2, 1, f"{n:064x}", reason=HOSTILE, changes=leaves, notes=(HOSTILE,))
        for n in range(jobs)
    )
    return Plan(COMMIT, None, None, actions, (JobError("bad", HOSTILE, HOSTILE, HOSTILE, 3),))


def sweep_job(**fields: object) -> Job:
    job = a_job("digits/mlp", {"hidden": 64}, grid={"optim.lr": (0.1, 0.01, 0.001)}, **fields)
    assert job.spec.sweep
    sweep = replace(job.spec.sweep, objective=Objective("val_accuracy", "maximize"))
    return replace(job, spec=replace(job.spec, sweep=sweep))


def history() -> Snapshot:
    """``digits/mlp``: v1 succeeded, v2 took two over and failed one; ``digits/linear``: running; one retired line."""
    first = sweep_job()
    told = recorded(first)
    told = _end(told, "digits/mlp", 1, [0.91, 0.972222, 0.88])
    second = sweep_job(env={"OMP_NUM_THREADS": "1"})
    widened = Sweep(params={"optim.lr": (0.1, 0.01, 0.001, 1.0)}, objective=Objective("val_accuracy", "maximize"))
    second = replace(second, spec=replace(first.spec, sweep=widened), points=(*second.points, *_point(1.0)))
    told = recorded(second, told)
    told = _reason(told, "digits/mlp", "sweep.params.optim.lr changed")
    failed = next(trial for trial in told.lines["digits/mlp"].last.trials if trial.state == "queued")
    told = fold(
        told,
        [
            Observed(
                "digits/mlp",
                2,
                failed.id,
                1,
                "failed",
                started_at=STARTED,
                ended_at=ENDED,
                exit_code=1,
                message="ValueError: loss is \x1b[31mnan\x1b[0m",
                environment={"python": "3.11.7", "numpy": "2.1.0"},
            )
        ],
    )
    told = recorded(a_job("digits/linear"), told)
    return recorded(a_job("digits/linear-with-a-long-name"), told)


def changes_of(told: Snapshot) -> tuple[Change, ...]:
    line = told.lines["digits/mlp"]
    origins = {"sweep.params.optim.lr": "conf/job/digits/mlp.yaml:14"}
    return diff(sweep_job().spec, line.last.spec, origins)


def _point(lr: float) -> tuple[object, ...]:
    return (replace(sweep_job().points[0], params={"hidden": 64, "optim.lr": lr}),)


def _reason(told: Snapshot, name: str, reason: str) -> Snapshot:
    line = told.lines[name]
    version = replace(
        line.last.version, reason=reason, subject="Widen the sweep", created_at="2026-01-02T04:04:05.000Z"
    )
    last = replace(line.last, version=version)
    return replace(told, heads={**told.heads, name: version}, lines={**told.lines, name: replace(line, last=last)})


def _end(told: Snapshot, name: str, version: int, values: list[float]) -> Snapshot:
    trials = told.lines[name].last.trials
    events = [
        Observed(
            name,
            version,
            trial.id,
            1,
            "succeeded",
            started_at=STARTED,
            ended_at=ENDED,
            exit_code=0,
            metrics={"val_accuracy": value, "loss": 1 - value, "epochs": 20.0},
            environment={"python": "3.11.7", "numpy": "1.26.4"},
        )
        for trial, value in zip(trials, values, strict=True)
    ]
    return fold(told, events)
