"""The nouns: frozen values that the other rooms pass around. Never computes an identity or a decision."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

State = Literal["queued", "running", "succeeded", "failed", "cancelled", "lost", "reused"]
VersionState = Literal["running", "succeeded", "failed", "cancelled"]
Reuse = Literal["true", "strict", "false"]

FINAL: tuple[State, ...] = ("succeeded", "failed", "cancelled", "lost", "reused")
"""States that an attempt never leaves."""


# What is wanted: a job at a commit


@dataclass(frozen=True, slots=True)
class Resources:
    """What a trial asks for. ``gpus`` may be a fraction; None means no limit."""

    cpus: float = 1.0
    memory_gib: float | None = None
    gpus: float = 0.0
    time_limit_s: float | None = None
    nodes: int = 1


@dataclass(frozen=True, slots=True)
class Objective:
    """Which metric is better in which direction."""

    metric: str
    goal: Literal["minimize", "maximize"]


@dataclass(frozen=True, slots=True)
class Sweep:
    """A search space and method.

    ``params``: for ``grid`` the values of each dotted name, last name fastest; ``points``: for
    the method ``points`` the flat maps themselves (``params`` is then empty).
    """

    method: str = "grid"
    params: Mapping[str, tuple[Json, ...]] = field(default_factory=dict)
    points: tuple[Mapping[str, Json], ...] = ()
    objective: Objective | None = None
    max_trials: int | None = None
    parallel: int | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Data:
    """A named input: a path of the repository with its git id and mode, or a uri (``file:PATH`` is untracked)."""

    path: str | None = None
    id: str | None = None
    uri: str | None = None
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Spec:
    """A job's whole resolved input at one commit: all that its digest covers.

    ``code`` maps each selected path to its blob id (``<id>`` for a plain file, ``<id> <mode>`` for
    any other mode). ``params`` are flat by dotted name. Strings may hold late values such as
    ``${espalier.trial}`` and, where they depend on a swept name, interpolations as written;
    ``context`` then holds the nodes outside the job that these reach. ``backend`` is its ``kind``
    with that backend's settings.
    """

    command: tuple[str, ...]
    code: Mapping[str, str] = field(default_factory=dict)
    pass_params: Literal["flags", "hydra", "env", "file"] = "flags"
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    grace_s: float = 30.0
    params: Mapping[str, Json] = field(default_factory=dict)
    sweep: Sweep | None = None
    data: Mapping[str, Data] = field(default_factory=dict)
    resources: Resources = Resources()
    backend: Mapping[str, Json] = field(default_factory=lambda: {"kind": "local"})
    app: Mapping[str, Json] = field(default_factory=dict)
    context: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Program:
    """What a trial starts with, where that depends on its values: the spec's command, env and data resolved."""

    command: tuple[str, ...]
    env: Mapping[str, str]
    data: Mapping[str, Data]


@dataclass(frozen=True, slots=True)
class Point:
    """One set of all parameter values, flat by dotted name; ``program`` only where it differs from the spec's."""

    params: Mapping[str, Json]
    program: Program | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """How a job's trials are treated; not part of the digest."""

    retries: int = 0
    recoveries: int = 3
    max_failures: int = 3
    on_supersede: Literal["finish", "cancel"] = "finish"
    reuse: Reuse = "true"


@dataclass(frozen=True, slots=True)
class Artifacts:
    """What of the output folder goes to MLflow: patterns as in .gitignore, megabytes in all."""

    include: tuple[str, ...] = ("**",)
    exclude: tuple[str, ...] = ()
    max_mb: float = 500.0


@dataclass(frozen=True, slots=True)
class Job:
    """A declared job at a commit. ``origins`` maps dotted paths of the spec to ``file:line``."""

    name: str
    spec: Spec
    points: tuple[Point, ...]
    policy: Policy = Policy()
    artifacts: Artifacts = Artifacts()
    description: str = ""
    origins: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a job does not compose, where, and what to do. ``job`` is empty for the repository's own settings."""

    job: str
    message: str
    hint: str
    file: str = ""
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """The repository's settings at a commit. ``experiment`` is a template: ``${espalier.job}`` stays in it."""

    project: str
    tracking_uri: str = "sqlite:///mlflow.db"
    experiment: str = "${espalier.project}/${espalier.job}"
    artifacts_uri: str | None = None
    ledger_remote: str | None = None
    ledger_follow: str | None = None
    max_new_trials: int | None = 100
    max_gpu_hours: float | None = None
    max_cost: float | None = None


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit of the repository; ``author`` is ``Name <email>``."""

    id: str
    subject: str
    author: str


@dataclass(frozen=True, slots=True)
class Declared:
    """What a commit declares: jobs sorted by name, and the errors of those that do not compose."""

    commit: Commit
    settings: Settings
    jobs: tuple[Job, ...]
    errors: tuple[JobError, ...] = ()


# What is recorded: versions and trials


@dataclass(frozen=True, slots=True)
class Counts:
    """How many trials of a version are in each state."""

    total: int = 0
    queued: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    lost: int = 0
    reused: int = 0


@dataclass(frozen=True, slots=True)
class Best:
    """The best trial of a version by its objective."""

    trial: str
    metric: str
    value: float


@dataclass(frozen=True, slots=True)
class Lease:
    """Who launches until when (RFC 3339, UTC); ``epoch`` rises with each taking over."""

    owner: str
    epoch: int
    until: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """A spec that a person called equal to the version's own."""

    digest: str
    scheme: int
    commit: str
    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class Version:
    """The record of one spec of a job; of its last version all that planning an unchanged job reads.

    Times are RFC 3339 in UTC. ``unanswered`` counts trials with an intent and no handle,
    ``retryable`` those failed or lost with attempts left. ``exit_code`` and ``message`` are of the
    first failed trial. ``open`` (of a line's last version) are the numbers of superseded versions
    that are not over: a pass that reads heads alone knows by it which lines to load. ``origins`` maps
    the paths that changed since the parent to ``file:line``.
    """

    job: str
    line: str | None
    version: int
    parent: int | None
    base: str | None
    digest: str
    scheme: int
    commit: str
    subject: str
    author: str
    actor: str
    reason: str
    created_at: str
    backend: str
    state: VersionState = "running"
    retired: bool = False
    official: bool = True
    ended_at: str | None = None
    run_id: str | None = None
    tracking_uri: str | None = None
    tracked: bool = False
    counts: Counts = Counts()
    best: Best | None = None
    objective: Objective | None = None
    policy: Policy = Policy()
    parallel: int | None = None
    artifacts: Artifacts = Artifacts()
    lease: Lease | None = None
    accepted: Accepted | None = None
    unanswered: int = 0
    retryable: int = 0
    waiting: int = 0
    open: tuple[int, ...] = ()
    description: str = ""
    origins: Mapping[str, str] = field(default_factory=dict)
    exit_code: int | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Trial:
    """The record of one trial; ``attempt`` is 0 while none was sent.

    ``content`` and ``strict`` are the digests by which it may be reused (with and without
    resources); ``retried`` and ``recovered`` count the further attempts that policy allowed;
    ``tracked`` says that MLflow has its end; ``environment`` names interpreter and packages.
    """

    id: str
    params: Mapping[str, Json]
    content: str
    strict: str
    state: State = "queued"
    attempt: int = 0
    exit_code: int | None = None
    message: str | None = None
    handle: str | None = None
    run_id: str | None = None
    started_at: str | None = None
    ended_at: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    reused_from: str | None = None
    program: Program | None = None
    key: str | None = None
    place: str | None = None
    retried: int = 0
    recovered: int = 0
    waits_for: str | None = None
    cancel_requested_at: str | None = None
    tracked: bool = False
    tracking_uri: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    forced: bool = False
