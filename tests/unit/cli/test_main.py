"""The console script: what it loads, what it refuses, how it ends."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from espalier.cli import main as cli
from espalier.core.errors import InputError
from espalier.core.names import parse_target

Capture = pytest.CaptureFixture[str]


def loaded_by(*words: str) -> set[str]:
    """The modules that a command loads beyond those of an empty program."""
    probe = "import sys; before = set(sys.modules); from espalier.cli.main import main; code = main(sys.argv[1:]); "
    probe += "print(*sorted(set(sys.modules) - before), file=sys.stderr); sys.exit(code)"
    source = str(Path(cli.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {source!r}); {probe}", *words],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stderr.split())


@pytest.mark.parametrize("words", [["--help"], ["-h"], [], ["help"], ["--version"]])
def test_help_and_version_load_nothing_but_the_main_module(words: list[str]) -> None:
    assert loaded_by(*words) == {"espalier", "espalier.cli", "espalier.cli.main"}


def test_help_names_every_command(capsys: Capture) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in cli.COMMANDS)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_explains_itself_without_loading_a_heavy_library(name: str) -> None:
    heavy = {"hydra", "omegaconf", "mlflow", "httpx", "yaml", "git"}
    assert not {module.partition(".")[0] for module in loaded_by(name, "--help")} & heavy


def test_the_version_is_printed(capsys: Capture) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("espalier ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["plon"], "hint: espalier plan?"),
        (["plan", "--exit-cod"], "hint: --exit-code? see: espalier plan --help"),
        (["plan", "--exit"], "--exit is no option"),
        (["plan", "extra"], "extra is one word too many"),
        (["show"], "required: JOB[@vN[/TRIAL]]"),
        (["plan", "--format", "html"], "invalid choice: 'html'"),
        (["--colour", "plan"], "--colour is no global option"),
        (["-C", "/nowhere/at/all", "plan"], "/nowhere/at/all is no folder"),
        (["-C"], "-C needs a folder"),
        (["logs", "a", "--tail", "-1"], "invalid"),
    ],
)
def test_bad_usage_exits_1_and_says_what_to_do(words: list[str], said: str, capsys: Capture) -> None:
    assert cli.main(words) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert said in printed.err
    assert "hint: " in printed.err


@pytest.mark.parametrize("name", cli.NOT_YET)
def test_a_command_that_is_not_there_yet_says_so_and_what_to_do_meanwhile(name: str, capsys: Capture) -> None:
    assert cli.main([name, "digits/mlp"]) == 1
    assert f"espalier {name} is not there yet\n  hint: meanwhile: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["plan", "--working-tree"],
        ["apply", "--line", "try"],
        ["apply", "--allow-unpushed"],
        ["fsck", "--rebuild"],
    ],
)
def test_an_option_that_is_not_there_yet_says_so(words: list[str], capsys: Capture) -> None:
    assert cli.main(words) == 1
    assert "is not there yet\n  hint: meanwhile: " in capsys.readouterr().err


def test_an_error_in_json_is_an_object_on_stdout(capsys: Capture) -> None:
    assert cli.main(["plan", "--nonsense", "--format", "json"]) == 1
    printed = capsys.readouterr()
    assert printed.err == ""
    tree = json.loads(printed.out)
    assert tree["format"] == 1
    assert set(tree["error"]) == {"message", "hint", "file", "line"}


@pytest.mark.parametrize("target", ["digits/mlp@v0", "digits/mlp@v00", "digits/mlp@v" + "9" * 5000])
def test_a_version_that_no_line_can_have_is_bad_usage_and_not_the_last_one(target: str) -> None:
    with pytest.raises(InputError):
        parse_target(target)


def test_half_a_character_in_a_name_is_printed_as_its_escape() -> None:
    code = "from espalier.cli.main import main; main(['--version']); print('{\"\\ud800\": \"é\"}')"
    environ = {"PYTHONPATH": str(Path(cli.__file__).parents[2]), "PYTHONUTF8": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, check=True)
    assert json.loads(done.stdout.splitlines()[1]) == {"\ud800": "é"}


def test_an_error_names_file_and_line(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    error = InputError("'hiden' is not in the schema", hint="use hidden", file="conf/job/a.yaml", line=7)
    raising(monkeypatch, error)
    assert cli.main(["plan"]) == 1
    assert capsys.readouterr().err == ("error: conf/job/a.yaml:7: 'hiden' is not in the schema\n  hint: use hidden\n")
    assert cli.main(["plan", "--format=json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"] == {
        "message": "'hiden' is not in the schema",
        "hint": "use hidden",
        "file": "conf/job/a.yaml",
        "line": 7,
    }


def test_ctrl_c_ends_with_130_and_says_that_the_work_goes_on(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    raising(monkeypatch, KeyboardInterrupt())
    assert cli.main(["follow"]) == 130
    assert "what runs goes on" in capsys.readouterr().err


def test_a_fault_of_ours_is_a_sentence_and_its_traceback_is_in_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, tmp_path: Path
) -> None:
    (tmp_path / ".espalier").mkdir()
    raising(monkeypatch, ZeroDivisionError("of https://user:hunter2@host/"))
    assert cli.main(["-C", str(tmp_path), "plan"]) == 1
    printed = capsys.readouterr().err
    assert "this is a bug in espalier: ZeroDivisionError" in printed
    assert "Traceback" not in printed
    (file,) = (tmp_path / ".espalier").iterdir()
    assert str(file) in printed
    assert "Traceback" in file.read_text("utf-8")
    assert "hunter2" not in printed + file.read_text("utf-8")


def test_a_reader_that_goes_away_is_not_an_error_message() -> None:
    source = str(Path(cli.__file__).parents[2])
    probe = (
        f"import sys; sys.path.insert(0, {source!r}); from espalier.cli.main import main; sys.exit(main(['--help']))"
    )
    process = subprocess.Popen([sys.executable, "-c", probe], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 1


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Make every command end as ``error`` ends it."""

    def run(words: list[str]) -> int:
        raise error

    monkeypatch.setattr(cli, "_run", run)
