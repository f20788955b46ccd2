"""What does a plan cost, for a whole repository and after one edit? Beside ``hydra.compose`` of each job.

The ledger is filled through espalier's own fakes of a backend and a tracker, so that no trial has to run first:
what is planned against is what an ``apply`` of everything would have left.
"""

import argparse
import json
import sys
from pathlib import Path

from measure import ESPALIER, Cost, arguments, place, show

GROUPS = {"optim": ("sgd", "adam"), "model": ("small", "wide", "deep"), "schedule": ("flat", "cosine")}
PROGRAM = "print('trained')\n"

APPLY = """
import sys
from dataclasses import replace
from pathlib import Path
from espalier.engine.apply import Options, apply_plan, plan_at
from espalier.engine.follow import follow
from espalier.testing.fakes import FakeBackend
from espalier.testing.memory import MemoryTracker
from espalier.wiring import open_world
backend = FakeBackend()
world = replace(open_world(Path.cwd()), backends=lambda kind: backend, tracker=MemoryTracker())
applied = apply_plan(world, *plan_at(world, "HEAD"), Options())
backend.run()
follow(world, applied.versions, once=True)
"""

RIVAL = """
import json, sys, time
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
names = json.loads(sys.argv[2])
with initialize_config_dir(sys.argv[1], version_base="1.3"):
    compose("config", [f"job={names[0]}"])
    wall, cpu = time.perf_counter(), time.process_time()
    for name in names:
        OmegaConf.to_container(compose("config", [f"job={name}"]).job, resolve=True)
print((time.perf_counter() - wall) / len(names), (time.process_time() - cpu) / len(names))
"""


def files(jobs: int) -> dict[str, str]:
    """Return a repository of so many jobs: shared groups, an override and values of its own in each."""
    found = {
        "conf/config.yaml": "defaults:\n  - backend@job.backend: local\n  - job: ???\n  - _self_\nproject: plan\n",
        "conf/backend/local.yaml": "kind: local\n",
        "conf/backend/quick.yaml": "kind: local\n",
        "conf/schedule/base.yaml": "warmup: 100\nfloor: 0.0\n",
        "train.py": PROGRAM,
    }
    for group, options in GROUPS.items():
        for number, option in enumerate(options):
            base = "defaults: [base]\n" if group == "schedule" else ""
            body = f"name: {option}\nfactor: {number + 1}\nnested: {{a: 1, b: [1, 2, 3]}}\n"
            found[f"conf/{group}/{option}.yaml"] = base + body
    found |= {job_file(number): job(number) for number in range(jobs)}
    return found


def job_file(number: int) -> str:
    """Return the path of a job's file."""
    return f"conf/job/g{number % 20:02d}/j{number:05d}.yaml"


def job(number: int, seed: int = 0) -> str:
    """Return a job: three groups, an override, and some parameters with an interpolation."""
    chosen = "".join(f"  - /{name}@params.{name}: {kinds[number % len(kinds)]}\n" for name, kinds in GROUPS.items())
    return (
        f"defaults:\n{chosen}  - override /backend: quick\n  - _self_\ncommand: python train.py\ncode: [train.py]\n"
        f"params:\n  seed: {seed}\n  number: {number}\n  total: ${{.number}}\n"
        "  model: {factor: 7}\n  optim: {factor: 0.5}\n  schedule: {warmup: 10}\n"
    )


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--jobs", type=int, default=200, metavar="N", help="so many jobs (default 200, up to 10000)")
    parser.add_argument("--sample", type=int, default=20, metavar="N", help="jobs that the rival composes")


def main() -> None:
    """Measure the plans, then the rival, and print the table."""
    options = arguments(__doc__ or "", add)
    jobs, plan = min(options.jobs, 10_000), (*ESPALIER, "plan", "--format", "json")
    with place() as here:
        repo = here.repository("repo", files(jobs))
        costs: dict[str, tuple[Cost, int]] = {}

        def measure(name: str, expected: int) -> None:
            changed = json.loads(here.espalier(repo, "plan", "--format", "json")[1])["summary"]
            pending = sum(count for kind, count in changed.items() if kind != "keep")
            if pending != expected:
                sys.exit(f"{name}: {changed}, {expected} were expected to change")
            costs[name] = here.best(plan, repo, options.repeat), pending

        measure("first plan", jobs)
        here.run([sys.executable, "-c", APPLY], repo)
        measure("nothing to do", 0)
        here.commit(repo, {job_file(0): job(0, seed=1)}, "One job")
        measure("one job's file changed", 1)
        here.commit(repo, {job_file(0): job(0)}, "As it was")
        text = (repo / "conf/model/wide.yaml").read_text("utf-8").replace("[1, 2, 3]", "[1, 2, 4]")
        here.commit(repo, {"conf/model/wide.yaml": text}, "A group")
        measure("a shared group's file changed", len([n for n in range(jobs) if n % len(GROUPS["model"]) == 1]))
        names = [job_file(number)[9:-5] for number in range(0, jobs, max(1, jobs // options.sample))]
        rival = (sys.executable, "-c", RIVAL, str(Path(repo, "conf")), json.dumps(names))
        cost, told = here.run(rival, repo)
        wall, cpu = (float(word) * jobs for word in told.split())
    rows = [
        {
            "plan": name, "changed": changed, "wall s": cost.wall, "CPU s": cost.cpu,
            "CPU ms/job": cost.cpu / jobs * 1e3, "peak MB": cost.peak_mb, "rival/CPU": cpu / cost.cpu,
        }
        for name, (cost, changed) in costs.items()
    ]  # fmt: skip
    rows.append(
        {
            "plan": "hydra.compose of each", "changed": None, "wall s": wall, "CPU s": cpu,
            "CPU ms/job": cpu / jobs * 1e3, "peak MB": cost.peak_mb, "rival/CPU": 1.0,
        }
    )  # fmt: skip
    note = (
        f"{jobs} jobs; the rival composed {len(names)} of them on a checkout, start-up aside: times {jobs}/{len(names)}"
    )
    show(rows, options, [note])


if __name__ == "__main__":
    main()
