from __future__ import annotations

import errno
import signal
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from segue import __main__ as program
from segue.cli import main as cli
from segue.errors import ConfigError, DataError


@pytest.fixture
def describe_does(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[list[str]], int]], None]:
    """Replaces what the command `describe` does."""

    def replace(action: Callable[[list[str]], int]) -> None:
        module = types.ModuleType("segue.cli.describe")
        module.main = action  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "segue.cli.describe", module)

    return replace


def raising(error: BaseException) -> Callable[[list[str]], int]:
    def action(argv: list[str]) -> int:
        raise error

    return action


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"], ["help"]])
def test_help_names_every_command_with_an_example_and_the_exit_codes(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(argv) == 0
    page = capsys.readouterr().out
    for name, command in cli.COMMANDS.items():
        assert f"  {name} " in page
        assert command.summary in page
        assert command.example in page
    assert "130  interrupted" in page


def test_every_command_has_a_module() -> None:
    folder = cli.__file__.removesuffix("main.py")
    import importlib.util

    missing = [name for name in cli.COMMANDS if importlib.util.find_spec(f"segue.cli.{name}") is None]
    assert not missing, f"no module in {folder} for {missing}"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("segue 0.")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["trian"], 'segue: segue has no command "trian": did you mean "train"?\n'),
        (["--versoin"], 'segue: segue has no option "--versoin" before the command: did you mean "--version"?\n'),
    ],
)
def test_misspelt_words_are_named_with_the_nearest(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(argv) == 2
    assert capsys.readouterr().err == message


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (DataError("ratings.csv is empty."), 1, "segue: ratings.csv is empty.\n"),
        (ConfigError("k must be 1 or more."), 2, "segue: k must be 1 or more.\n"),
        (OSError(errno.ENOSPC, "No space left on device", "out"), 1, "segue: out: No space left on device.\n"),
        (OSError(13, "Permission denied"), 1, "segue: Permission denied.\n"),
        (OSError("the pipe is odd"), 1, "segue: the pipe is odd\n"),
        (SystemExit(0), 0, ""),
        (SystemExit(2), 2, ""),
        (KeyboardInterrupt(), 130, "segue: interrupted.\n"),
    ],
)
def test_errors_become_exit_codes_and_messages_without_traceback(
    error: BaseException,
    code: int,
    message: str,
    describe_does: Callable[[Callable[[list[str]], int]], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    describe_does(raising(error))
    assert cli.main(["describe", "data"]) == code
    assert capsys.readouterr().err == message


def test_an_interrupted_command_may_say_how_to_go_on(
    describe_does: Callable[[Callable[[list[str]], int]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    interrupt = KeyboardInterrupt()
    interrupt.add_note("Go on with --resume.")
    describe_does(raising(interrupt))
    assert cli.main(["describe", "data"]) == 130
    assert capsys.readouterr().err == "segue: interrupted.\nGo on with --resume.\n"


def test_debug_lets_the_traceback_through(describe_does: Callable[[Callable[[list[str]], int]], None]) -> None:
    describe_does(raising(DataError("empty")))
    with pytest.raises(DataError):
        cli.main(["--debug", "describe", "data"])


def test_the_command_gets_what_follows_its_name(describe_does: Callable[[Callable[[list[str]], int]], None]) -> None:
    seen: list[list[str]] = []
    describe_does(lambda argv: seen.append(argv) or 0)  # type: ignore[func-returns-value]
    assert cli.main(["describe", "data", "--json"]) == 0
    assert seen == [["data", "--json"]]


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_help_of_every_command_shows_its_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([name, "--help"]) == 0
    assert cli.COMMANDS[name].example in capsys.readouterr().out


def test_a_full_memory_is_one_line(
    describe_does: Callable[[Callable[[list[str]], int]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    describe_does(raising(MemoryError("Unable to allocate 7.28 TiB for an array")))
    assert cli.main(["describe", "data"]) == 1
    expected = "segue: the memory is full (Unable to allocate 7.28 TiB for an array): choose smaller sizes.\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize("named", [False, True])
def test_a_full_temporary_folder_is_named(
    named: bool,
    describe_does: Callable[[Callable[[list[str]], int]], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    where = (str(tmp_path / "segue-1" / "part"),) if named else ()
    describe_does(raising(OSError(errno.ENOSPC, "No space left on device", *where)))
    assert cli.main(["describe", "data"]) == 1
    message = capsys.readouterr().err
    assert message.endswith(f"Temporary files are in {tmp_path}; TMPDIR names another folder.\n")
    assert ("segue-1" in message) is named


@pytest.mark.parametrize("error", [ImportError("initialization failed"), SystemError("returned NULL"), ValueError("x")])
def test_a_library_that_is_interrupted_while_it_loads(
    error: Exception,
    describe_does: Callable[[Callable[[list[str]], int]], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It may turn Ctrl-C into an error of its own."""

    def interrupted(argv: list[str]) -> int:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise error from None
        return 0

    before = signal.getsignal(signal.SIGINT)
    describe_does(interrupted)
    assert cli.main(["describe", "data"]) == 130
    assert capsys.readouterr().err == "segue: interrupted.\n"
    assert signal.getsignal(signal.SIGINT) is before
    describe_does(raising(error))
    with pytest.raises(type(error)):
        cli.main(["describe", "data"])


@pytest.mark.slow
@pytest.mark.parametrize("module", ["torch", "polars", "segue.training.fit"])
def test_ctrl_c_while_a_module_is_imported(module: str) -> None:
    """A real signal to a real process that has just begun to import."""
    code = (
        "import os, signal, sys, threading, time\n"
        "from segue.cli.main import main\n"
        "def later():\n"
        f"    while {module!r} not in sys.modules: time.sleep(0.001)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "threading.Thread(target=later, daemon=True).start()\n"
        "sys.exit(main(['train', 'nowhere', '--out', 'never']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode in (130, -signal.SIGINT), done
    assert done.stderr == "segue: interrupted.\n"


def test_ctrl_c_while_the_command_line_is_loaded_ends_in_one_line() -> None:
    """SIGINT arrives within the import of the module that a command needs first."""
    code = (
        "import builtins, os, signal, sys\n"
        "usual = builtins.__import__\n"
        "def imported(name, *rest):\n"
        "    if name == 'segue.cli.main':\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    return usual(name, *rest)\n"
        "from segue.__main__ import main\n"
        "builtins.__import__ = imported\n"
        "sys.exit(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "segue: interrupted.\n")


def test_the_program_runs_a_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["segue", "--version"])
    before = signal.getsignal(signal.SIGINT)
    assert program.main() == 0
    assert capsys.readouterr().out.startswith("segue ")
    assert signal.getsignal(signal.SIGINT) is before
