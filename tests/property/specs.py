"""Generated specs, records and events: what the laws are tried on."""

import contextlib
from dataclasses import replace
from typing import Any, get_args

from hypothesis import strategies as st

from espalier.core.content import SCHEME, digest, trial_contents, trial_id
from espalier.core.errors import StaleError
from espalier.core.events import (
    CancelRequested,
    Created,
    CursorMoved,
    Event,
    Intended,
    Intent,
    Observed,
    Opened,
    Record,
    Retired,
    Snapshot,
    Submitted,
    Tracked,
    Treated,
    fold,
)
from espalier.core.model import (
    Artifacts,
    Data,
    Json,
    Lease,
    Objective,
    Point,
    Policy,
    Resources,
    Spec,
    State,
    Sweep,
    Trial,
    Version,
)

NOW = "2026-01-02T03:04:05Z"
NAMES = st.sampled_from(["a", "b", "a.b", "c", "on", "1e5", "ü n", ""])
STRINGS = st.one_of(
    st.text(max_size=6),
    st.sampled_from(["null", "no", "1", "1.0", "1e-3", "0x1f", "1_000", "1:30", "2026-01-02", "~", "<<", "=", "a: b"]),
    st.sampled_from(
        ["- x", "# x", "'", '"', "\\", "\n", "\t x", "\x85", "\u2028", "\ufeff", "🌱", ".inf", "${a.b}", "???"]
    ),
)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
SCALARS: st.SearchStrategy[Json] = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), FLOATS, STRINGS
)
VALUES: st.SearchStrategy[Json] = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=5
)
MAPS = st.dictionaries(NAMES, VALUES, max_size=3)
NUMBERS = st.sampled_from([0.5, 1.0, 2.0])
METRICS = st.dictionaries(st.sampled_from(["acc", "loss"]), st.floats(), max_size=2)

OBJECTIVES = st.builds(Objective, st.sampled_from(["acc", "loss"]), st.sampled_from(["minimize", "maximize"]))
SWEEPS = st.builds(
    Sweep,
    params=st.dictionaries(NAMES, st.lists(VALUES, max_size=3).map(tuple), max_size=2),
    points=st.lists(MAPS, max_size=2).map(tuple),
    objective=st.none() | OBJECTIVES,
    max_trials=st.none() | st.integers(1, 3),
    parallel=st.none() | st.integers(1, 3),
    seed=st.integers(0, 1),
)
SPECS = st.builds(
    Spec,
    command=st.lists(STRINGS, max_size=2).map(tuple),
    code=st.dictionaries(
        st.sampled_from(["train.py", "src/a.py", "001"]), st.sampled_from(["a" * 40, "1" * 40, "0e1"])
    ),
    pass_params=st.sampled_from(["flags", "hydra", "env", "file"]),
    env=st.dictionaries(NAMES, STRINGS, max_size=2),
    secrets=st.lists(st.sampled_from(["A", "B"]), max_size=2).map(tuple),
    grace_s=st.sampled_from([30.0, 60.0]),
    params=MAPS,
    sweep=st.none() | SWEEPS,
    data=st.dictionaries(NAMES, st.builds(Data, *[st.none() | st.sampled_from(["x", "1"])] * 4), max_size=2),
    resources=st.builds(Resources, NUMBERS, st.none() | NUMBERS, NUMBERS, st.none() | NUMBERS, st.integers(1, 2)),
    backend=st.just({"kind": "local"}) | MAPS,
    app=MAPS,
    context=MAPS,
)

JOBS = ("digits/mlp", "digits/mlp+scan", "other")
RATES = (0.1, 0.2)


def version_of(name: str, number: int, spec: Spec, **fields: Any) -> Version:
    job, _, line = name.partition("+")
    whole: dict[str, Any] = {
        "job": job,
        "line": line or None,
        "version": number,
        "parent": number - 1 or None,
        "base": f"{job}@v1" if line else None,
        "digest": digest(spec),
        "scheme": SCHEME,
        "commit": "c" * 40,
        "subject": "s",
        "author": "a",
        "actor": "b",
        "reason": "r",
        "created_at": NOW,
        "backend": "local",
        "objective": Objective("acc", "maximize"),
    }
    return Version(**{**whole, **fields})


def record_of(name: str, number: int, sent: int, policy: Policy) -> Record:
    """A version whose first ``sent`` trials have an intent."""
    spec = Spec(("python",), params={"n": 0}, sweep=Sweep(params={"lr": RATES}))
    points = [Point({"lr": rate, "n": 0}) for rate in RATES]
    contents = trial_contents(spec, points)
    trials = [Trial(trial_id(p.params), p.params, *both) for p, both in zip(points, contents, strict=True)]
    intended = [replace(trial, attempt=1, key=f"{trial.id}1", place="p") for trial in trials[:sent]]
    return Record(version_of(name, number, spec, policy=policy), spec, (*intended, *trials[sent:]))


TRIALS = tuple(trial.id for trial in record_of("x", 1, 0, Policy()).trials)
TRIAL = st.sampled_from(TRIALS)
AT = (st.sampled_from([JOBS[0], *JOBS]), st.sampled_from([1, 1, 2, 3]))
ATTEMPTS = st.integers(0, 3)
POLICIES = st.builds(Policy, st.integers(0, 1), st.integers(0, 1))
STATES: st.SearchStrategy[Any] = st.sampled_from([*get_args(State), "unknown"])


@st.composite
def intents(draw: st.DrawFn) -> Intent:
    trial, attempt = draw(TRIAL), draw(st.integers(1, 3))
    because = draw(st.sampled_from(["first", "retry", "recover", "person"]))
    return Intent(trial, attempt, f"{trial}{attempt}", draw(st.sampled_from(["p", "q"])), because)


LEASES = st.none() | st.builds(Lease, st.just("me"), st.integers(1, 2), st.just(NOW))
EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.builds(lambda *fields: Created(record_of(*fields)), AT[0], AT[1], st.integers(0, 2), POLICIES),
    st.builds(Intended, *AT, st.lists(intents(), max_size=2).map(tuple), LEASES),
    st.builds(Opened, *AT, st.sampled_from(["r1", "r2"]), st.just("uri"), st.dictionaries(TRIAL, st.just("run"))),
    st.builds(Submitted, *AT, st.dictionaries(TRIAL, st.tuples(ATTEMPTS, st.sampled_from(["h1", "h2"])))),
    st.builds(
        Observed,
        *AT,
        TRIAL,
        ATTEMPTS,
        STATES,
        ended_at=st.none() | st.just(NOW),
        exit_code=st.none() | st.integers(0, 2),
        metrics=METRICS,
        tracked=st.booleans(),
    ),
    st.builds(Tracked, *AT, st.dictionaries(TRIAL, METRICS), st.booleans()),
    st.builds(CancelRequested, *AT, st.lists(TRIAL, max_size=2).map(tuple), st.just(NOW)),
    st.builds(Retired, *AT),
    st.builds(Treated, *AT, POLICIES, st.none() | st.integers(1, 3), st.just(Artifacts(max_mb=1.0))),
    st.builds(CursorMoved, st.sampled_from(["main", "dev"]), st.sampled_from(["c1", "c2"])),
)


@st.composite
def likely(draw: st.DrawFn, snapshot: Snapshot) -> Event:
    """An event that fits what ``snapshot`` holds, so that histories get somewhere."""
    name = draw(st.sampled_from(sorted(snapshot.lines)))
    line = snapshot.lines[name]
    record = draw(st.sampled_from([line.last, *line.open.values()]))
    at, trial = (name, record.version.version), draw(st.sampled_from(record.trials))
    final = draw(st.sampled_from(["failed", "failed", "succeeded", "lost", "cancelled", "running"]))
    further = Intent(trial.id, trial.attempt + 1, f"{trial.id}{trial.attempt + 1}", "p", "person")
    fits: list[Event] = [
        Observed(*at, trial.id, trial.attempt, final, ended_at=NOW, tracked=draw(st.booleans())),
        Intended(*at, (further,)),
        Tracked(*at, {each.id: {} for each in record.trials}, whole_version=True),
        Created(record_of(name, line.last.version.version + 1, draw(st.integers(0, 2)), draw(POLICIES))),
    ]
    return draw(st.sampled_from([fits[0], *fits]))


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    """Events that begin with versions; most fit what was told before, the others come as they may."""
    told: list[Event] = [
        Created(record_of(name, 1, draw(st.integers(1, 2)), draw(POLICIES))) for name in JOBS[: draw(st.integers(1, 3))]
    ]
    snapshot = fold(Snapshot("0" * 40, "id", "project"), told)
    for fits in draw(st.lists(st.sampled_from([True, True, True, False]), max_size=25)):
        event = draw(likely(snapshot)) if fits else draw(EVENTS)
        told.append(event)
        with contextlib.suppress(StaleError):
            snapshot = fold(snapshot, [event])
    return told
