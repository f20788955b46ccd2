"""One command's work in a process of its own, which may be told to die: ``REPOSITORY WHAT [POINT [JOURNAL]]``.

WHAT is ``apply``, ``follow``, ``cancel:TARGET`` or ``retry:TARGET``. No follower runs beside it, so
that what it does is what is tested.
"""

import sys
from pathlib import Path

from espalier.core.names import parse_target
from espalier.engine import act
from espalier.engine.apply import Options, apply_plan, plan_at
from espalier.engine.follow import follow
from espalier.testing.crash import kill_at, parse_point
from espalier.wiring import open_world


def main(repository: str, what: str, point: str = "", journal: str = "") -> None:
    whole = open_world(Path(repository), start_runner=True, follower=False)
    world = kill_at(whole, parse_point(point) if point else None, Path(journal) if journal else None)
    name, _, target = what.partition(":")
    if name == "apply":
        declared, plan, snapshot = plan_at(world, "HEAD")
        awaited = apply_plan(world, declared, plan, snapshot, Options()).versions
    elif name == "follow":
        heads = world.ledger.read().heads
        awaited = tuple((line, head.version) for line, head in heads.items())
    else:
        awaited = {"cancel": act.cancel, "retry": act.retry}[name](world, parse_target(target))
    follow(world, awaited)


if __name__ == "__main__":
    main(*sys.argv[1:])
