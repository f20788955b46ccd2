"""Who may start now: slots for CPUs, memory and whole GPUs of one machine. PURE: never looks at the machine."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from espalier.core.model import Resources

_ROUNDING = 1e-6  # ten trials of 0.1 CPUs fill one


@dataclass(frozen=True, slots=True)
class Machine:
    """What a machine has; ``memory_gib`` None: not known. ``gpus`` are the names that CUDA_VISIBLE_DEVICES takes."""

    cpus: float
    memory_gib: float | None = None
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wish:
    """A queued trial: what it asks for, which version's ``parallel`` it falls under, which GPUs it may use."""

    key: str
    version: str
    resources: Resources
    parallel: int | None = None
    gpus: tuple[str, ...] | None = None  # None: any


@dataclass(frozen=True, slots=True)
class Held:
    """What a running trial holds."""

    version: str
    resources: Resources
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """The latest attempt of a trial, as far as ``max_failures`` cares."""

    state: str
    counts_as_failure: bool


@dataclass
class _Free:
    cpus: float
    memory_gib: float
    gpus: list[str] = field(default_factory=list)

    def has(self, want: Resources, allowed: tuple[str, ...] | None = None) -> bool:
        cpus, memory_gib = self.cpus + _ROUNDING, self.memory_gib + _ROUNDING
        gpus = self._usable(allowed)
        return want.cpus <= cpus and (want.memory_gib or 0) <= memory_gib and want.gpus <= len(gpus)

    def take(self, want: Resources, allowed: tuple[str, ...] | None = None) -> tuple[str, ...]:
        """Take as much of ``want`` as there is; return the GPUs."""
        self.cpus = max(0.0, self.cpus - want.cpus)
        self.memory_gib = max(0.0, self.memory_gib - (want.memory_gib or 0))
        taken = tuple(self._usable(allowed)[: int(want.gpus)])
        self.gpus = [gpu for gpu in self.gpus if gpu not in taken]
        return taken

    def _usable(self, allowed: tuple[str, ...] | None) -> list[str]:
        return [gpu for gpu in self.gpus if allowed is None or gpu in allowed]


def refusal(resources: Resources, machine: Machine) -> str | None:
    """Return why ``machine`` can never run this, None when it can."""
    if resources.nodes > 1:
        return f"resources.nodes is {resources.nodes}; the local backend runs one node"
    if resources.gpus != int(resources.gpus):
        return f"resources.gpus is {resources.gpus:g}; the local backend hands out whole GPUs"
    if resources.cpus > machine.cpus:
        return f"resources.cpus is {resources.cpus:g}, this machine has {machine.cpus:g}"
    if resources.gpus > len(machine.gpus):
        return f"resources.gpus is {resources.gpus:g}, this machine has {len(machine.gpus)}"
    if machine.memory_gib is not None and (resources.memory_gib or 0) > machine.memory_gib:
        return f"resources.memory_gib is {resources.memory_gib:g}, this machine has {machine.memory_gib:.1f}"
    return None


def choose(queued: Iterable[Wish], running: Collection[Held], machine: Machine) -> dict[str, tuple[str, ...]]:
    """Return the keys that start now, in order, each with its GPUs.

    First come, first served. A trial that does not fit keeps what is free of its wish reserved, so that
    a later one passes it only with what the earlier one could not use: a large trial never starves. A
    trial that waits for its version's ``parallel`` reserves nothing.
    """
    free = _Free(machine.cpus, machine.memory_gib if machine.memory_gib is not None else float("inf"))
    busy = {gpu for held in running for gpu in held.gpus}
    free.gpus = [gpu for gpu in machine.gpus if gpu not in busy]
    of_version: dict[str, int] = {}
    for held in running:
        free.take(Resources(cpus=held.resources.cpus, memory_gib=held.resources.memory_gib))
        of_version[held.version] = of_version.get(held.version, 0) + 1
    chosen: dict[str, tuple[str, ...]] = {}
    for wish in queued:
        if free.cpus <= _ROUNDING:
            break
        if wish.parallel is not None and of_version.get(wish.version, 0) >= max(1, wish.parallel):
            continue
        if free.has(wish.resources, wish.gpus):
            chosen[wish.key] = free.take(wish.resources, wish.gpus)
            of_version[wish.version] = of_version.get(wish.version, 0) + 1
        else:
            free.take(wish.resources, wish.gpus)
    return chosen


def stop_message(outcomes: Iterable[Outcome], max_failures: int) -> str | None:
    """Return why no more trials of a version start, None when they do.

    ``outcomes`` are those of its trials' latest attempts.
    """
    seen = list(outcomes)
    failed = sum(outcome.state == "failed" and outcome.counts_as_failure for outcome in seen)
    if failed < max(1, max_failures) or any(outcome.state == "succeeded" for outcome in seen):
        return None
    trials = "1 trial" if failed == 1 else f"{failed} trials"
    return f"not started: {trials} failed and none succeeded (policy.max_failures)"


def gpus_from(environ: Mapping[str, str], listed: Sequence[str]) -> tuple[str, ...]:
    """Return the GPUs that a command may use: what CUDA_VISIBLE_DEVICES leaves of those ``nvidia-smi -L`` listed."""
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return tuple(str(index) for index, line in enumerate(line for line in listed if line.startswith("GPU ")))
    names = [name.strip() for name in visible.split(",") if name.strip()]
    return tuple(names[: names.index("-1")] if "-1" in names else names)
