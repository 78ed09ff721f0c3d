"""The `segue` command: it finds and runs a command, and turns errors into messages and exit codes."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NamedTuple, TextIO

from segue.cli.printable import printable
from segue.errors import ConfigError, SegueError, nearest

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


class Command(NamedTuple):
    """One command in `segue --help`; the code is the module of the same name in this folder."""

    summary: str
    example: str


COMMANDS = {
    "prepare": Command(
        "turn a file, or a public dataset by name, into a Dataset folder",
        "segue prepare ratings.csv --out data/mine --k-core 5",
    ),
    "embed": Command(
        "add vectors of its texts to a product table",
        "segue embed products.csv --text title --model models/minilm --out vectors.parquet",
    ),
    "describe": Command("show figures and pictures of a Dataset", "segue describe data/mine"),
    "datasets": Command("list the public datasets that segue knows by name", "segue datasets"),
    "simulate": Command(
        "simulate sessions of shoppers with known preferences",
        "segue simulate --out data/shop --users 1000",
    ),
    "train": Command(
        "fit a model on a Dataset; stopped runs resume exactly",
        "segue train data/mine --model sasrec --out runs/first",
    ),
    "tune": Command(
        "search for better settings of a model, by validation alone",
        "segue tune data/mine --model sasrec --trials 40 --out searches/sasrec",
    ),
    "blend": Command(
        "blend runs into one, with weights chosen on validation",
        "segue blend runs/first runs/second --out runs/both",
    ),
    "evaluate": Command("measure a run on its test or validation users", "segue evaluate runs/first --k 5,10,20"),
    "compare": Command("test two or more runs for a real difference", "segue compare runs/first runs/second"),
    "experiment": Command(
        "train and compare models over data sets and seeds, in one table",
        "segue experiment plan.yaml --out paper",
    ),
    "recommend": Command(
        "recommend the next items to some users or to all",
        "segue recommend runs/first --users 42 7",
    ),
    "complete": Command(
        "complete a basket, step by step",
        "segue complete runs/first --user 42 --basket 50 172 --n 3",
    ),
    "score": Command("score given items for given users", "segue score runs/first --users 42 --items 1 2"),
    "similar": Command("find the items most like some others", "segue similar runs/first --items 50"),
    "explain": Command(
        "explain a score by the items of a history",
        "segue explain runs/first --user 42 --item 50",
    ),
    "refresh": Command(
        "take a new log into a Dataset and its run: append, train on, compare, replace",
        "segue refresh data/mine runs/current tuesday.csv",
    ),
    "card": Command("write the model card of a run, with figures of its test part", "segue card runs/first"),
    "push": Command("write a run to the Hugging Face hub, or a folder to a store", "segue push runs/first owner/name"),
    "pull": Command("copy a folder of segue from a store", "segue pull s3://bucket/shards data/shards"),
    "forget": Command("remove users from a Dataset or a run", "segue forget runs/first --users 42 7"),
    "serve": Command(
        "answer over HTTP, with events that count at once",
        "segue serve runs/first --store sqlite:///events.db",
    ),
    "token": Command("make a token for the service", "segue token new --name shop --rights read write"),
    "events": Command(
        "write the events that the service stored as a log",
        "segue events export --store sqlite:///events.db --out events.parquet",
    ),
    "outcome": Command(
        "compare served variants by the items that users took", "segue outcome --store sqlite:///events.db"
    ),
    "export": Command(
        "write a model for ONNX, or an index for approximate search",
        "segue export runs/first --to onnx --out exported",
    ),
    "graph": Command("draw the compute graph of a model's loss", "segue graph runs/first --out graph.svg"),
    "demo": Command("run all steps once on simulated data, in a minute or two", "segue demo"),
}


_imported_first: list[str] = []
"""Modules that `--import` named, in order."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Parameters
    ----------
    argv
        The words after `segue`; None takes those of the process.

    Returns
    -------
    int
        0: done. 1: an error in the data, a file or the training. 2: an error in the command line or the configuration.
        130: interrupted, by Ctrl-C or SIGTERM.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    _imported_first.clear()
    with warnings.catch_warnings(), _interrupts() as interrupts:
        warnings.showwarning = _show_warning
        return _guarded(words, interrupts)


def _guarded(words: list[str], interrupts: threading.Event) -> int:
    """Run the command; errors become a message and an exit code."""
    debug = words[:1] == ["--debug"]
    try:
        _require_unicode(words)
        return _dispatch(_imported(words[debug:]))
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else OK
    except KeyboardInterrupt as interrupt:
        _complain("\n".join(["interrupted.", *getattr(interrupt, "__notes__", ())]))
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output (such as head) has left; the flush at exit must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (SegueError, OSError) as error:
        if debug:
            raise
        _complain("\n".join([_words(error), *getattr(error, "__notes__", ())]))
        return USAGE if isinstance(error, ConfigError) else FAILED
    except MemoryError as error:
        if debug:
            raise
        _complain(f"the memory is full ({str(error).rstrip('.') or 'no more can be had'}): choose smaller sizes.")
        return FAILED
    except Exception:
        # A library that is interrupted while it is imported may end in an error of its own.
        if debug or not interrupts.is_set():
            raise
        _complain("interrupted.")
        return INTERRUPTED


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """Yield an event that is set by Ctrl-C, which still raises KeyboardInterrupt; tracebacks of it are not shown.

    SIGTERM, by which schedulers end a job, is treated like Ctrl-C, unless the program treats it already.
    """
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        interrupted.set()
        signal.default_int_handler(number, frame)

    def terminate(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would disturb the tidying up
        interrupted.set()
        raise KeyboardInterrupt

    def show(unraisable: sys.UnraisableHookArgs) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            before_hook(unraisable)

    before, before_hook = signal.getsignal(signal.SIGINT), sys.unraisablehook
    own = before is signal.default_int_handler
    terminable = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    sys.unraisablehook = show
    if own:
        signal.signal(signal.SIGINT, interrupt)
    if terminable:
        signal.signal(signal.SIGTERM, terminate)
    try:
        yield interrupted
    finally:
        if terminable:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        sys.unraisablehook = before_hook
        if own:
            signal.signal(signal.SIGINT, before)


def _require_unicode(words: Sequence[str]) -> None:
    """Raise a ConfigError if a word is no Unicode text: files of segue are, and could not name it."""
    for word in words:
        if any("\ud800" <= one <= "\udfff" for one in word):
            raise ConfigError(f'"{word}" is not UTF-8: rename the file or folder, or give it a link with another name.')
        if "\0" in word:
            raise ConfigError(f'"{word}" holds a null character: no path and no id does.')


def _words(error: SegueError | OSError) -> str:
    """The error in one line; for errors of the system (no permission, a full disk), the file and the reason."""
    if isinstance(error, OSError) and error.strerror:
        scratch = tempfile.gettempdir()
        named = error.filename if isinstance(error.filename, str | bytes) else None
        where = "" if named is None else f"{os.fsdecode(named)}: "
        way = ""
        is_scratch = named is None or os.fsdecode(named).startswith(str(Path(scratch, "segue-")))
        if is_scratch and error.errno in (errno.ENOSPC, errno.EDQUOT):
            way = f" Temporary files are in {scratch}; TMPDIR names another folder."
        return f"{where}{error.strerror}.{way}"
    return str(error)


def import_module(name: str) -> None:
    """Import a module that the user names, from the current folder too.

    Raises
    ------
    ConfigError
        There is no such module, or it needs another that is missing.
    """
    if not all(part.isidentifier() for part in name.split(".")):
        raise ConfigError(f'"{name}" is no name of a module: expected package.module.')
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(f'"{name}" cannot be imported: {error}.') from error


def command_line(command: str, argv: Sequence[str]) -> list[str]:
    """The words that run a command again, as in another process: with the `--import`s of this one."""
    return ["segue", *(word for name in _imported_first for word in ("--import", name)), command, *argv]


def _imported(words: list[str]) -> list[str]:
    """The command line without its leading `--import`s, after importing their modules."""
    while words and words[0].partition("=")[0] == "--import":
        _, equals, name = words[0].partition("=")
        rest = words[1:] if equals else words[2:]
        name = name if equals else "".join(words[1:2])
        if not name or name.startswith("-"):
            raise ConfigError("segue: --import needs a module, and none follows.")
        import_module(name)
        _imported_first.append(name)
        words = rest
    return words


def _dispatch(words: list[str]) -> int:
    """Answer `--help` and `--version`; hand all other words to the command's module."""
    if not words or words[0] in ("-h", "--help", "help"):
        if words[1:] and words[1] in COMMANDS:
            return _dispatch([words[1], "--help"])
        sys.stdout.write(_help())
        return OK
    name, rest = words[0], words[1:]
    if name == "--version":
        from importlib.metadata import version

        sys.stdout.write(f"segue {version('segue')}\n")
        return OK
    if name.startswith("-"):
        known = ("--help", "--version", "--debug", "--import")
        raise ConfigError(f'segue has no option "{name}" before the command: {nearest(name, known)}')
    if name not in COMMANDS:
        raise ConfigError(f'segue has no command "{name}": {nearest(name, COMMANDS)}')
    code = importlib.import_module(f"segue.cli.{name}").main(rest)
    return int(code)


def _help() -> str:
    """Text of `segue --help`."""
    width = max(map(len, COMMANDS))
    lines = [
        "usage: segue [--debug] [--import MODULE] <command> [options]",
        "",
        "Sequential recommendation: from a log of interactions to recommendations with reasons.",
        "",
        "commands:",
        *(f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()),
        "",
        "options:",
        "  -h, --help       this page; after a command, that command's options",
        "  --version        the version of segue",
        "  --debug          before a command: show the traceback of an error",
        "  --import MODULE  before a command: import a module first, such as one with a model of your own",
        "",
        "examples:",
        *(f"  {command.example}" for command in COMMANDS.values()),
        "",
        "exit codes:",
        "  0    done",
        "  1    an error in the data, a file or the training: the message says what to do",
        "  2    an error in the command line or the configuration: the message names the option",
        "  130  interrupted by Ctrl-C or SIGTERM",
        "",
    ]
    return "\n".join(lines)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Write a warning like an error, without its position in the code."""
    _complain(f"warning: {message}")


def _complain(message: str) -> None:
    """Write a message to standard error, apart from results."""
    sys.stderr.write(f"segue: {printable(message)}\n")


if __name__ == "__main__":
    sys.exit(main())
