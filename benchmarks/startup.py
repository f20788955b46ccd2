"""What does a command cost that has next to nothing to do? In multiples of ``python -c pass``, beside mlflow's."""

import sys
from pathlib import Path

from measure import ESPALIER, PASS, arguments, place, show

FILES = {
    "conf/config.yaml": "defaults:\n  - job: ???\n  - _self_\nproject: startup\n",
    "conf/job/one.yaml": "command: python one.py\ncode: [one.py]\n",
    "one.py": "print('done')\n",
}


def main() -> None:
    """Measure each command and print the table."""
    options = arguments(__doc__ or "")
    with place() as here:
        repo = here.repository("repo", FILES)
        here.espalier(repo, "apply")
        mlflow = str(Path(sys.executable).with_name("mlflow"))
        commands = {
            "python -c pass": PASS,
            "espalier --help": (*ESPALIER, "--help"),
            "espalier status": (*ESPALIER, "status"),
            "espalier history one": (*ESPALIER, "history", "one"),
            "espalier plan, nothing to do": (*ESPALIER, "plan"),
            "mlflow --version": (mlflow, "--version"),
        }
        here.best(PASS, repo, 3)  # warm
        costs = {name: here.best(command, repo, options.repeat) for name, command in commands.items()}
    least = costs["python -c pass"].cpu
    rows = [
        {"command": name, "wall ms": cost.wall * 1e3, "CPU ms": cost.cpu * 1e3, "x pass": cost.cpu / least}
        for name, cost in costs.items()
    ]
    show(rows, options, ["x pass: CPU, children included"])


if __name__ == "__main__":
    main()
