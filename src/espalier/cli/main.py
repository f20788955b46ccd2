"""The console script: finds the command that is named, runs it, turns errors into exit codes.

``--help`` and ``--version`` print what stands here and load nothing else, so this module imports
next to nothing. Never prints a result itself.
"""

import os
import sys

HELP = """\
usage: espalier [-C DIR] COMMAND …

Declare training jobs in a Hydra tree; what is committed is what runs.

start here
  init      make a working repository, or add what is missing to one
  doctor    is everything reachable and allowed, and how to mend what is not

change
  plan      what apply would do at a commit (default HEAD)
  apply     carry it out, then follow until all is final
  follow    look after what was applied
  cancel    end the unfinished trials of a version, or one trial
  retry     a further attempt for what failed, was lost or cancelled

look
  status    where things stand
  history   a job's line of versions
  show      one version whole, with why it exists
  diff      two versions side by side
  spec      a job's resolved spec, each leaf with its file and line
  logs      a trial's output
  ui        MLflow's UI on the configured store

check
  schema    the JSON Schema of a job
  fsck      is the ledger sound

  -C DIR      use the repository at DIR
  --version   print the version
  --help      print this; espalier COMMAND --help says more

exit codes: 0 done, 1 error, 2 changes pending (plan --exit-code), 3 a trial did not succeed, 130 Ctrl-C
"""

COMMANDS = (
    *("init", "plan", "apply", "follow", "spec", "status", "history", "show"),
    *("diff", "logs", "cancel", "retry", "ui", "schema", "doctor", "fsck"),
)

NOT_YET = {
    "sweep": "put the sweep into the job's file and commit it; then espalier apply",
    "run": "commit, then espalier apply; to try without espalier, start the job's command by hand",
    "rerun": "espalier retry runs again what failed, was lost or cancelled",
    "accept": "let espalier apply make a new version; what it can take over does not run again",
    "pick": "espalier show names the best trial's values; write them into the job's file",
    "compare": "espalier diff A B shows two versions; espalier ui compares their runs",
    "controller": "call espalier apply and espalier follow from a timer",
    "clean": "folders of ended trials below .espalier/ may be deleted by hand",
}

BAD_USAGE = "see: espalier --help"


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = sys.argv[1:] if argv is None else list(argv)
    if not words or words[0] in ("--help", "-h", "help"):
        return _print(HELP if len(words) < 2 else "", words[1:])
    if words == ["--version"]:
        from espalier import __version__

        return _print(f"espalier {__version__}\n", [])
    return _guarded(words)


def _print(text: str, more: list[str]) -> int:
    if not text:
        return _guarded([more[0], "--help"])  # espalier help COMMAND
    _tolerant()
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        return _pipe_closed()
    return 0


def _guarded(words: list[str]) -> int:
    """Run the command; the one place that catches errors."""
    from espalier.core.errors import EspalierError

    _tolerant()
    try:
        code = _run(words)
        sys.stdout.flush()
        return code
    except EspalierError as error:
        return _refused(error, words)
    except KeyboardInterrupt:
        sys.stderr.write(
            "\nstopped watching; what runs goes on (espalier follow watches again, espalier cancel ends)\n"
        )
        return 130
    except BrokenPipeError:
        return _pipe_closed()
    except Exception as error:  # a bug of ours: a person gets a sentence, the traceback goes to a file
        return _bug(error, words)


def _run(words: list[str]) -> int:
    from espalier.core.errors import InputError

    directory, words = _directory(words)
    if not words:
        raise InputError("no command is named", hint=BAD_USAGE)
    name, rest = words[0], words[1:]
    if name in NOT_YET:
        raise InputError(f"espalier {name} is not there yet", hint=f"meanwhile: {NOT_YET[name]}")
    if name not in COMMANDS:
        raise _unknown(name)
    import importlib

    from espalier.cli import parser

    command = importlib.import_module(f"espalier.cli.commands.{name}")
    arguments = parser.parse(name, command.add_arguments, rest, directory)
    return 0 if arguments is None else int(command.run(arguments))


def _directory(words: list[str]) -> tuple[str, list[str]]:
    """Return the folder that ``-C`` names and the words after the global options."""
    from espalier.core.errors import InputError

    directory = "."
    while words and words[0].startswith("-"):
        word = words[0]
        if word == "-C" and len(words) > 1:
            directory, words = os.path.join(directory, words[1]), words[2:]
        elif word.startswith("-C") and len(word) > 2:
            directory, words = os.path.join(directory, word[2:]), words[1:]
        elif word in ("--help", "-h", "--version"):
            raise InputError(f"{word} stands alone", hint=f"espalier {word}, or espalier COMMAND --help")
        else:
            raise InputError(f"{word} is no global option" if word != "-C" else "-C needs a folder", hint=BAD_USAGE)
    if not os.path.isdir(directory):
        raise InputError(f"{directory} is no folder", hint="-C takes the folder of a repository")
    return directory, words


def _unknown(name: str) -> Exception:
    import difflib

    from espalier.core.errors import InputError

    near = difflib.get_close_matches(name, [*COMMANDS, *NOT_YET], n=1)
    return InputError(f"{name!r} is no command", hint=f"espalier {near[0]}?" if near else BAD_USAGE)


def _wants_json(words: list[str]) -> bool:
    return "--format=json" in words or "--format json" in " ".join(words)


def _refused(error: Exception, words: list[str]) -> int:
    if _wants_json(words):
        from espalier.cli.views.error import error_json

        sys.stdout.write(error_json(error) + "\n")
    else:
        from espalier.cli.views.error import error_text

        _flushed()
        sys.stderr.write(error_text(error) + "\n")
    return int(getattr(error, "exit_code", 1))


def _flushed() -> None:
    """Write out what was printed before, so that the error stands below it."""
    sys.stdout.flush()


def _pipe_closed() -> int:
    """The reader has gone: say nothing, also not while Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def _bug(error: Exception, words: list[str]) -> int:
    import tempfile
    import traceback

    from espalier import __version__
    from espalier.cli.views.error import bug_json, bug_text
    from espalier.core.masking import mask

    text = mask("".join(traceback.format_exception(error)))
    try:
        directory = _directory(words)[0]
    except Exception:  # the words themselves may be what is wrong
        directory = "."
    place = os.path.join(directory, ".espalier")
    for folder in (place, None):
        if folder and not os.path.isdir(folder):
            continue
        try:
            number, path = tempfile.mkstemp(prefix="crash-", suffix=".txt", dir=folder)
        except OSError:
            continue
        with os.fdopen(number, "w", encoding="utf-8", errors="replace") as file:
            file.write(f"espalier {__version__}, Python {sys.version.split()[0]}, command {words[:1]}\n{text}")
        break
    else:
        path = ""
    said = f"{type(error).__name__}: {mask(str(error))}"
    if _wants_json(words):
        sys.stdout.write(bug_json(said, path) + "\n")
    else:
        sys.stderr.write(bug_text(said, path) + "\n")
    return 1


def _tolerant() -> None:
    """A terminal that cannot show an arrow gets a question mark, not an error; half a character its escape."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure:
            whole = (stream.encoding or "").lower() in ("utf-8", "utf8")
            reconfigure(errors="backslashreplace" if whole else "replace")  # \ud800 stays what JSON calls it
