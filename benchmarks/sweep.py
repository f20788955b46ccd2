"""What does a sweep cost beyond its trials? ``espalier apply`` end to end, beside a loop that does the least.

The rivals run the same program with the same values: a loop of ``subprocess.run`` that logs to the same kind of
MLflow store by the mlflow client, in one process; and Hydra's ``--multirun`` with its basic launcher, which calls
the function in its own process and records nothing but its folders.
"""

import argparse
import json
import sqlite3
import sys
from contextlib import closing
from datetime import datetime
from pathlib import Path

from measure import ESPALIER, PASS, Cost, Place, arguments, background_cpu, place, show

PROGRAM = """
import argparse, json, os, pathlib
parser = argparse.ArgumentParser()
parser.add_argument("--x", type=int)
x = parser.parse_args().x
pathlib.Path(os.environ["ESPALIER_OUTPUT_DIR"], "metrics.json").write_text(json.dumps({"loss": (x - 3) ** 2}))
"""

DATABASE = """
import sys, mlflow
mlflow.MlflowClient(sys.argv[1]).search_experiments()
"""

LOOP = """
import json, os, pathlib, subprocess, sys
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
client = MlflowClient(f"sqlite:///{os.getcwd()}/mlflow.db")
experiment = client.create_experiment("loop", artifact_location=f"{os.getcwd()}/mlartifacts")
parent = client.create_run(experiment).info.run_id
for x in range(int(sys.argv[1])):
    run = client.create_run(experiment, tags={"mlflow.parentRunId": parent}, run_name=f"x={x}").info.run_id
    output = pathlib.Path("out", str(x))
    output.mkdir(parents=True)
    environ = {**os.environ, "ESPALIER_OUTPUT_DIR": str(output)}
    with open(output / "log.txt", "wb") as log:
        subprocess.run([sys.executable, "train.py", f"--x={x}"], env=environ, stdout=log, stderr=log, check=True)
    metrics = [Metric(key, value, 0, 0) for key, value in json.loads((output / "metrics.json").read_text()).items()]
    client.log_batch(run, metrics=metrics, params=[Param("x", str(x))])
    client.log_artifacts(run, str(output))
    client.set_terminated(run)
client.set_terminated(parent)
"""

HYDRA = """
import json, pathlib
import hydra
@hydra.main(version_base="1.3", config_path=None)
def main(config):
    folder = pathlib.Path(hydra.core.hydra_config.HydraConfig.get().runtime.output_dir)
    (folder / "metrics.json").write_text(json.dumps({"loss": (config.x - 3) ** 2}))
main()
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--points", type=int, default=100, metavar="N", help="so many trials (default 100)")


def files(points: int) -> dict[str, str]:
    """Return a repository with one job that sweeps so many points."""
    return {
        "conf/config.yaml": "defaults:\n  - job: ???\n  - _self_\nproject: sweep\n",
        "conf/job/tiny.yaml": (
            f"command: [{sys.executable}, train.py]\ncode: [train.py]\nparams: {{x: 0}}\n"
            f"sweep:\n  params: {{x: 'range({points})'}}\n  objective: {{metric: loss, goal: minimize}}\n"
        ),
        "train.py": PROGRAM,
        ".gitignore": "mlflow.db*\nmlartifacts/\n",
    }


def main() -> None:
    """Run the sweep in each way and print the table."""
    options = arguments(__doc__ or "", add)
    points = options.points
    with place() as here:
        repo = here.repository("repo", files(points))
        loop = here.repository("loop", {"train.py": PROGRAM})
        multirun = here.repository("multirun", {"train.py": HYDRA})
        for folder in (repo, loop):  # its tables take seconds to make, for whoever comes first
            here.run([sys.executable, "-c", DATABASE, f"sqlite:///{folder}/mlflow.db"], folder)
        least = here.best(PASS, repo, 5)
        alone = here.best([sys.executable, "-c", "import argparse, json, pathlib"], repo, 5)
        ways = {"espalier apply": (_whole(here, repo), _trials_s(here, repo))}
        ways["loop with mlflow's client"] = here.run([sys.executable, "-c", LOOP, str(points)], loop)[0], None
        values = ",".join(map(str, range(points)))
        ways["hydra --multirun"] = here.run([sys.executable, "train.py", "-m", f"+x={values}"], multirun)[0], None
        runs = _runs(repo)
    base = ways["loop with mlflow's client"][0]
    rows = [
        {
            "way": name, "wall s": cost.wall, "trials' own s": own, "CPU s": cost.cpu,
            "CPU/trial x pass": cost.cpu / points / least.cpu,
            "beyond x pass": (cost.cpu / points - alone.cpu) / least.cpu,
            "peak MB": cost.peak_mb, "wall/loop": cost.wall / base.wall,
        }
        for name, (cost, own) in ways.items()
    ]  # fmt: skip
    notes = [
        f"{points} trials, {runs} runs FINISHED in MLflow after espalier; the database had its tables before",
        "trials' own: the sum of each one's start to end in the ledger; they overlap on the machine's slots",
        "beyond: the CPU above that of the bare program's imports, a trial; hydra --multirun starts no processes",
        "espalier's peak is the command's; its CPU has the runner, the follower and the service in it",
    ]
    show(rows, options, notes)


def _whole(here: Place, repo: Path) -> Cost:
    """Apply; return its cost with the CPU of what it left in the background."""
    before = background_cpu()
    cost, _ = here.run([*ESPALIER, "apply"], repo)
    return Cost(cost.wall, background_cpu() - before, cost.peak_mb)


def _trials_s(here: Place, repo: Path) -> float:
    version = json.loads(here.espalier(repo, "show", "tiny@v1", "--format", "json")[1])
    if {trial["state"] for trial in version["trials"]} != {"succeeded"}:
        sys.exit("a trial did not succeed")
    times = [(trial["started_at"], trial["ended_at"]) for trial in version["trials"]]
    return sum((datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds() for start, end in times)


def _runs(repo: Path) -> int:
    with closing(sqlite3.connect(f"file:{repo}/mlflow.db?mode=ro", uri=True)) as database:
        return int(database.execute("select count(*) from runs where status = 'FINISHED'").fetchone()[0])


if __name__ == "__main__":
    main()
