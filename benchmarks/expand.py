"""What does a large sweep cost to plan? A thousand points, with and without parameters that follow the swept ones.

The rival is what Hydra's own sweeper does for each point before it starts one: ``hydra.compose`` with its overrides.
"""

import argparse
import json
import sys
from pathlib import Path

from measure import ESPALIER, PASS, arguments, place, show

PLAIN = "params: {lr: 0.1, width: 1, warmup: 0.1, name: run}\n"
FOLLOWING = "params: {lr: 0.1, width: 1, warmup: '${.lr}', name: 'w${.width}-${.lr}'}\n"
JOB = "command: [python, train.py]\ncode: [train.py]\n"

RIVAL = """
import json, sys, time
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
count = int(sys.argv[3])
with initialize_config_dir(sys.argv[1], version_base="1.3"):
    compose("config", [f"job={sys.argv[2]}"])
    cpu = time.process_time()
    for n in range(count):
        made = compose("config", [f"job={sys.argv[2]}", f"job.params.lr={n}e-3", f"job.params.width={n}"])
        OmegaConf.to_container(made.job.params, resolve=True)
print((time.process_time() - cpu) / count)
"""


def files(points: int) -> dict[str, str]:
    """Return a repository with three jobs: one point, and so many with and without interpolation."""
    sweep = f"sweep:\n  params: {{lr: 'choice(0.1,0.01,0.001,1.0)', width: 'range({points // 4})'}}\n"
    return {
        "conf/config.yaml": "defaults:\n  - job: ???\n  - _self_\nproject: expand\nlimits: {max_new_trials: 1000000}\n",
        "conf/job/one.yaml": JOB + PLAIN,
        "conf/job/plain.yaml": JOB + PLAIN + sweep,
        "conf/job/following.yaml": JOB + FOLLOWING + sweep,
        "train.py": "print('trained')\n",
    }


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--points", type=int, default=1000, metavar="N", help="so many points (default 1000)")
    parser.add_argument("--sample", type=int, default=20, metavar="N", help="points that the rival composes")


def main() -> None:
    """Measure each sweep and the rival, and print the table."""
    options = arguments(__doc__ or "", add)
    points = options.points // 4 * 4
    rows: list[dict[str, object]] = []
    with place() as here:
        repo = here.repository("repo", files(points))
        least = here.best(PASS, repo, options.repeat).cpu
        fixed = here.best([*ESPALIER, "plan", "--job", "one"], repo, options.repeat).cpu
        for name in ("plain", "following"):
            words = [*ESPALIER, "plan", "--format", "json", "--job", name]
            planned = json.loads(here.run(words, repo)[1])["actions"][0]["trials"]["total"]
            if planned != points:
                sys.exit(f"{name}: {planned} points, {points} were expected")
            cost = here.best(words, repo, options.repeat)
            told = here.run([sys.executable, "-c", RIVAL, str(Path(repo, "conf")), name, str(options.sample)], repo)[1]
            rival, more = float(told) * points, cost.cpu - fixed
            rows.append(
                {
                    "sweep": name, "points": points, "CPU s": cost.cpu, "ms/point": more / points * 1e3,
                    "x pass": cost.cpu / least, "peak MB": cost.peak_mb, "hydra.compose s": rival,
                    "ratio": rival / more,
                }
            )  # fmt: skip
    notes = [
        "ms/point and ratio: what is above a plan of one job without a sweep, start-up included there",
        f"hydra.compose was measured on {options.sample} points, start-up aside",
    ]
    show(rows, options, notes)


if __name__ == "__main__":
    main()
