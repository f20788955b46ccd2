"""``espalier schema``: the JSON Schema of a job file, for editors. Never reads a repository."""

import argparse
import json

from espalier import wiring
from espalier.cli import terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``schema``."""
    parser.description = "The JSON Schema of a job file, so that editors complete and check."
    parser.add_argument("--format", choices=("json",), default="json", help=argparse.SUPPRESS)


def run(arguments: argparse.Namespace) -> int:
    """Print the schema."""
    del arguments
    terminal.result(json.dumps(wiring.schema(), indent=2, ensure_ascii=False))
    return 0
