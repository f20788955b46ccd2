"""Words to arguments, by argparse; bad usage is an InputError like any other. Never runs a command."""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

from espalier.core.errors import InputError


class Parser(argparse.ArgumentParser):
    """argparse with our errors: exit code 1, and JSON where it is asked for."""

    def error(self, message: str) -> NoReturn:
        near = ""
        if message.startswith("unrecognized arguments: "):
            import difflib  # 1 ms of start-up that only bad usage needs

            word = message.removeprefix("unrecognized arguments: ").split()[0]
            known = [option for action in self._actions for option in action.option_strings]
            found = difflib.get_close_matches(word.split("=")[0], known, n=1)
            near = f"{found[0]}? " if found else ""
            message = f"{word} is no option of {self.prog}" if word.startswith("-") else f"{word} is one word too many"
        raise InputError(message, hint=f"{near}see: {self.prog} --help")


def parse(
    name: str, add_arguments: Callable[[argparse.ArgumentParser], None], words: Sequence[str], directory: str
) -> argparse.Namespace | None:
    """Return the arguments of ``espalier NAME``; None when its help was asked for and has been printed."""
    helped = "-h" in words or "--help" in words
    # argparse makes a formatter for each option, and without a width that imports shutil with every compression
    shaped = partial(argparse.HelpFormatter, width=None if helped else 80)
    parser = Parser(prog=f"espalier {name}", allow_abbrev=False, add_help=False, formatter_class=shaped)
    parser.add_argument("-h", "--help", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("-C", dest="directory", metavar="DIR", default="", help="use the repository at DIR")
    add_arguments(parser)
    if helped:
        parser.print_help(sys.stdout)
        return None
    arguments = parser.parse_args(words)
    arguments.directory = Path(directory, arguments.directory)
    return arguments


def add_format(parser: argparse.ArgumentParser, *forms: str) -> None:
    """Add ``--format``; the first form is the default."""
    parser.add_argument("--format", choices=forms, default=forms[0], help=f"default {forms[0]}")


def add_fetch(parser: argparse.ArgumentParser) -> None:
    """Add ``--fetch``, which ``lookup.open_ledger`` carries out."""
    parser.add_argument("--fetch", action="store_true", help="fetch the ledger first, where it has a remote")


def add_not_yet(parser: argparse.ArgumentParser, option: str, instead: str, *, value: bool = False) -> None:
    """Add an option that the contract names and that is not there yet: naming it is an error with ``instead``."""

    class Refused(argparse.Action):
        def __call__(self, *_: object, **__: object) -> NoReturn:
            raise InputError(f"{option} is not there yet", hint=f"meanwhile: {instead}")

    parser.add_argument(option, action=Refused, nargs=None if value else 0, help=argparse.SUPPRESS)
