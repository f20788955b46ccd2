"""``espalier spec``: a job's resolved spec at a commit. Never reads the ledger or the working tree."""

import argparse
import difflib

from espalier import wiring
from espalier.cli import terminal
from espalier.cli.parser import add_format
from espalier.cli.views.spec import spec_json, spec_yaml
from espalier.core.errors import InputError
from espalier.core.names import parse_job


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``spec``."""
    parser.description = "The resolved spec and its digest, each leaf with the file and line that it comes from."
    parser.add_argument("job", metavar="JOB")
    parser.add_argument("--rev", default="HEAD", help="the commit (default HEAD)")
    add_format(parser, "yaml", "json")


def run(arguments: argparse.Namespace) -> int:
    """Print the spec."""
    source = wiring.open_world(arguments.directory, rev=arguments.rev).source
    name = parse_job(arguments.job)
    commit = source.resolve(arguments.rev)
    declared = source.specs(commit, [name])
    for error in declared.errors:
        if error.job in (name, ""):
            raise InputError(error.message, hint=error.hint, file=error.file, line=error.line)
    job = next((job for job in declared.jobs if job.name == name), None)
    if job is None:
        everything = source.specs(commit)
        names = [*(job.name for job in everything.jobs), *(error.job for error in everything.errors)]
        near = difflib.get_close_matches(name, names, n=1)
        raise InputError(
            f"{name} is not declared at {commit.id[:12]}",
            hint=f"{near[0]}?" if near else f"declared are: {', '.join(names[:10]) or 'no jobs'}",
        )
    terminal.result(spec_json(job, commit) if arguments.format == "json" else spec_yaml(job, commit))
    return 0
