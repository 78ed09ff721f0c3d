"""Random files of every format, damaged at random, and read: errors for users, rows kept, no hang.

`run` reads for some seconds in a process of its own, which it ends if one file takes too long. The tests call it for
some seconds, `benchmarks/fuzz.py` for as long as one likes.
"""

from __future__ import annotations

import ast
import base64
import csv
import gzip
import io
import json
import math
import multiprocessing
import os
import random
import re
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

import segue
from segue.errors import SegueError

LONGEST = 10.0
"""Seconds after which reading counts as hanging."""

_BLANKS = re.compile(r"[^\S\x1c-\x1f]+")  # as polars counts them
_T = 1_577_836_800
_HEADER = ["user_id", "item_id", "rating", "timestamp", "title"]
_WORDS = ("tea", "Mad Max", 'The "Best"', "a, b", '12" vinyl', "x;y", "", "ünï", "it's", "two\nlines", "NULL")
_TOKENS = (
    b'"', b'""', b"'", b"\r", b"\n", b"\r\n", b"\n\n", b"\0", b"\xef\xbb\xbf", b"\xff", b"\xe9", b",", b"\t", b";",
    b"::", b"|", b" ", b"NULL", b"NA", b"nan", b"NaN", b"-Infinity", b"1e5", b".0", b"-1", b"+2", b"007", b"0",
    b"9" * 19, b"9" * 40, b"9" * 400, b"[" * 50, b"[" * 3000, b"]", b"{", b"}", b"{}", b"[]", b":", b"\\", b"\\N", b"#",
    b"20200102", b"20200102100000", b"2020-01-02", b"2020-01-02T03:04:05Z", b"12/31/2020", b"1577836800000", b"null",
    b"true", "\u2028".encode(), "\u200b".encode(), b"\x0b", b"\x0c", b"\x1c", b"\x85", b"=1+1", b"%",
)  # fmt: skip


# ---- files -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes
    ----------
    suffix
        Ending of the name.
    make
        Content of a whole file.
    count
        Number of rows that an independent parser keeps of a damaged file; None if it keeps to none.
    """

    suffix: str
    make: Callable[[random.Random], bytes]
    count: Callable[[bytes], int | None]


def _rows(rng: random.Random) -> list[list[Any]]:
    n = rng.choice([1, 2, 5, 20, 60])
    named = rng.random() < 0.3
    users, items = rng.choice([3, 30]), rng.choice([3, 100])
    return [
        [
            f"u{rng.randrange(users)}" if named else rng.randrange(users),
            rng.randrange(items),
            rng.randrange(1, 11) / 2,
            _T + rng.randrange(10**6),
            rng.choice(_WORDS),
        ]
        for _ in range(n)
    ]


def _csv(separator: str, header: bool, columns: int, quoting: int = csv.QUOTE_MINIMAL) -> Kind:
    def make(rng: random.Random) -> bytes:
        text = io.StringIO()
        writer = csv.writer(text, delimiter=separator, quoting=quoting, lineterminator=rng.choice(["\n", "\n", "\r\n"]))
        rows = [row[:columns] for row in _rows(rng)]
        writer.writerows([_HEADER[:columns], *rows] if header else rows)
        return text.getvalue().encode()

    return Kind(".csv", make, lambda content: _count_csv(content, separator, columns, header))


def _plain(separator: str, header: list[str] | None, columns: int, suffix: str) -> Kind:
    """Lines without quoting: quote marks are ordinary characters."""

    def make(rng: random.Random) -> bytes:
        rows = [[str(value).replace("\n", " ") for value in row[:columns]] for row in _rows(rng)]
        lines = [separator.join(row) for row in ([header, *rows] if header else rows)]
        return "\n".join([*lines, ""]).encode()

    def count(content: bytes) -> int | None:
        text = _text(content)
        if text is None:
            return None
        rows = [line.split(separator) for line in text.split("\n") if line.strip()]
        return max(0, sum(len(row) == columns for row in rows) - (header is not None))

    return Kind(suffix, make, count)


def _count_csv(content: bytes, separator: str, columns: int, header: bool) -> int | None:
    text = _text(content)
    if text is None:
        return None
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))
    except csv.Error:
        return None
    return max(0, sum(len(row) == columns for row in rows) - header)


def _text(content: bytes) -> str | None:
    """Text with line feeds at the ends of lines; None if it is not UTF-8."""
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError:
        return None


def _records(rng: random.Random) -> list[dict[str, Any]]:
    return [dict(zip(_HEADER, row, strict=True)) for row in _rows(rng)]


def _count_lines(parse: Callable[[str], Any]) -> Callable[[bytes], int | None]:
    def count(content: bytes) -> int | None:
        text = _text(content)
        kept = 0
        for line in (text or "").split("\n"):
            try:
                kept += isinstance(parse(line.strip()), dict)
            except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
                continue
        return None if text is None else kept

    return count


def _count_array(content: bytes) -> int | None:
    try:
        value = json.loads(_text(content) or "")
    except (ValueError, RecursionError):
        return None
    return len(value) if isinstance(value, list) else None


def _user_lines(rng: random.Random) -> bytes:
    lines = [[user, *(rng.randrange(50) for _ in range(rng.randrange(1, 6)))] for user in range(rng.choice([2, 30]))]
    return "".join(" ".join(map(str, line)) + "\n" for line in lines).encode()


def _sessions(rng: random.Random) -> bytes:
    lines = ["user_id,time,session_length,session_items"]
    for _ in range(rng.choice([1, 20])):
        items = [str(rng.randrange(2, 50)) for _ in range(rng.randrange(1, 5))]
        lines.append(",".join([str(rng.randrange(5)), str(rng.randrange(99)), str(len(items)), *items]))
    return "\n".join([*lines, ""]).encode()


def _count_words(content: bytes) -> int | None:
    text = _text(content)
    return (
        None
        if text is None
        else sum(max(0, len([word for word in _BLANKS.split(line) if word]) - 1) for line in text.split("\n"))
    )


def _count_items(content: bytes) -> int | None:
    text = _text(content)
    if text is None:
        return None
    rows = [line.replace(" ", "").split(",") for line in text.split("\n")[1:] if line.strip()]
    return sum(len(row) - 3 for row in rows if len(row) > 3 and row[2] == str(len(row) - 3))


def _parquet(rng: random.Random) -> bytes:
    stream = io.BytesIO()
    pl.DataFrame(_records(rng)).write_parquet(stream)
    return stream.getvalue()


def _count_parquet(content: bytes) -> int | None:
    try:
        return int(pq.read_table(io.BytesIO(content)).num_rows)
    except Exception:
        return None


def _lines_of(dump: Callable[[Any], str]) -> Callable[[random.Random], bytes]:
    return lambda rng: "".join(dump(record) + "\n" for record in _records(rng)).encode()


KINDS: dict[str, Kind] = {
    "csv": _csv(",", True, 5),
    "csv, all quoted": _csv(",", True, 5, csv.QUOTE_ALL),
    "csv, no header": _csv(",", False, 4),
    "semicolons": _csv(";", True, 5),
    "tsv": _plain("\t", _HEADER, 5, ".tsv"),
    "tsv, no header": _plain("\t", None, 4, ".tsv"),
    "dat": _plain("::", None, 4, ".dat"),
    "blanks": _plain(" ", None, 2, ".txt"),
    "inter": _plain("\t", ["user_id:token", "item_id:token", "rating:float", "timestamp:float"], 4, ".inter"),
    "user lines": Kind(".txt", _user_lines, _count_words),
    "session file": Kind(".txt", _sessions, _count_items),
    "jsonl": Kind(".jsonl", _lines_of(json.dumps), _count_lines(json.loads)),
    "python dicts": Kind(".json", _lines_of(repr), _count_lines(ast.literal_eval)),
    "json": Kind(".json", lambda rng: json.dumps(_records(rng), indent=rng.choice([None, 1])).encode(), _count_array),
    "parquet": Kind(".parquet", _parquet, _count_parquet),
}
"""Kinds of files by name."""


# ---- damage ----------------------------------------------------------------------------------------------------------


def _damaged(content: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.choice([0, 1, 1, 2, 3, 8])):
        content = rng.choice(_DAMAGES)(content, rng)
    return content


def _insert(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content) + 1)
    return content[:place] + rng.choice(_TOKENS) + content[place:]


def _overwrite(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content) + 1)
    token = rng.choice(_TOKENS)
    return content[:place] + token + content[place + len(token) :]


def _flip(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content) + 1)
    return content[:place] + bytes([rng.randrange(256)]) + content[place + 1 :]


def _cut(content: bytes, rng: random.Random) -> bytes:
    begin = rng.randrange(len(content) + 1)
    return content[:begin] + content[begin + rng.choice([1, 2, 10, 10**6]) :]


def _shuffle_lines(content: bytes, rng: random.Random) -> bytes:
    lines = content.split(b"\n")
    place, other = (rng.randrange(len(lines)) for _ in range(2))
    action = rng.randrange(4)
    if action == 0:
        lines[place], lines[other] = lines[other], lines[place]
    elif action == 1:
        lines.insert(place, lines[other])
    elif action == 2:
        del lines[place]
    else:
        lines *= rng.choice([2, 60])
    return b"\n".join(lines)


def _field(content: bytes, rng: random.Random) -> bytes:
    """Another value for one field of one line."""
    lines = content.split(b"\n")
    place = rng.randrange(len(lines))
    mark = rng.choice([b",", b"\t", b";", b"::", b" ", b": "])
    fields = lines[place].split(mark)
    fields[rng.randrange(len(fields))] = rng.choice(_TOKENS)
    lines[place] = mark.join(fields)
    return b"\n".join(lines)


def _line_ends(content: bytes, rng: random.Random) -> bytes:
    return content.replace(b"\n", rng.choice([b"\r", b"\r\n", b"\n\n"]))


_DAMAGES = (_insert, _insert, _overwrite, _flip, _cut, _shuffle_lines, _field, _field, _line_ends)


# ---- cases -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """A file that was not read as it should be."""

    case: int
    kind: str
    problem: str
    options: dict[str, Any]
    files: dict[str, str]
    """Name → content, in base64."""


@dataclass
class Report:
    """Result of `run`."""

    cases: int = 0
    read: int = 0
    refused: int = 0
    slowest: float = 0.0
    slowest_case: int = 0
    rows_compared: int = 0
    by_kind: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)


def case_of(seed: int, case: int) -> tuple[str, dict[str, bytes], dict[str, Any], bool]:
    """Kind, files by name, options, and whether to prepare rather than read: a function of seed and case."""
    rng = random.Random(f"{seed} {case}")
    name = rng.choice(list(KINDS))
    kind = KINDS[name]
    files = {}
    for part in range(rng.choice([1, 1, 1, 1, 2])):
        content = kind.make(rng)
        files[f"part-{part}{kind.suffix}"] = _damaged(content, rng) if rng.random() < 0.9 else content
    if rng.random() < 0.1:
        files = {f"{file}.gz": gzip.compress(content, mtime=0) for file, content in files.items()}
        if rng.random() < 0.3:
            files = {file: _flip(content, rng) for file, content in files.items()}
    options: dict[str, Any] = {"bad_rows": rng.choice(["error", "error", "drop"])}
    if rng.random() < 0.1:
        options["quote"] = rng.choice(["none", '"', "'"])
    if rng.random() < 0.1:
        options["time"] = False
    if rng.random() < 0.05:
        options |= {"user": 0, "item": 1}
    return name, files, options, rng.random() < 0.2


def outcome(seed: int, case: int, folder: Path) -> tuple[str, str, int]:
    """Kind, problem (empty if there is none) and rows compared of one case, whose files are written to the folder."""
    name, files, options, prepares = case_of(seed, case)
    for file, content in files.items():
        (folder / file).write_bytes(content)
    source = folder if len(files) > 1 else folder / next(iter(files))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if prepares:
                kept = segue.prepare(source, duplicates="keep", sessions="none", **options)
                rows = kept.n_interactions + kept.metadata["bad_rows_dropped"]
                layout = kept.metadata["format"]
            else:
                log = segue.read(source, **options)
                rows, layout = log.collect().height + log.dropped, log.format
    except SegueError as error:
        return name, f"error {type(error).__name__}", 0
    except BaseException as error:
        return name, f"{type(error).__name__}: {error}", 0
    finally:
        for file in files:
            (folder / file).unlink()
    expected = _kept_rows(name, files.values(), layout, options)
    if expected is not None and rows < expected:
        return name, f"{rows} rows were read, and an independent parser keeps {expected}", 0
    return name, "", expected or 0


_LAYOUTS = {"user lines": "user-lines", "session file": "session-file", "python dicts": "python-dict", "inter": "inter"}


def _kept_rows(name: str, contents: Iterable[bytes], layout: str, options: dict[str, Any]) -> int | None:
    """Rows that an independent parser keeps; None if the file was rightly read as something else."""
    own = _LAYOUTS.get(name, name if name in ("jsonl", "json", "parquet") else "csv")
    if layout != own or "quote" in options:
        return None
    counts = [KINDS[name].count(gzip.decompress(c) if c.startswith(b"\x1f\x8b") else c) for c in contents]
    return None if None in counts else sum(count for count in counts if count is not None)


# ---- running ---------------------------------------------------------------------------------------------------------


def _work(connection: Connection, seed: int, first: int, step: int) -> None:
    """Read case after case, and tell about each before and after."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # polars writes there if a file makes it panic
    with tempfile.TemporaryDirectory() as folder:
        case = first
        while True:
            connection.send(case)
            begin = time.perf_counter()
            name, problem, rows = outcome(seed, case, Path(folder))
            connection.send((name, problem, rows, time.perf_counter() - begin))
            case += step


def run(seconds: float, seed: int = 0) -> Report:
    """Read damaged files for some seconds.

    Parameters
    ----------
    seconds
        Time to spend, from the first case on.
    seed
        The cases are a function of it.
    """
    report, end, case = Report(), math.inf, 0
    context = multiprocessing.get_context("spawn")
    while time.monotonic() < end:
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, seed, case, 1), daemon=True)
        process.start()
        theirs.close()
        started = False
        try:
            while time.monotonic() < end:
                if not ours.poll(LONGEST if started else 120):
                    report.faults.append(_fault(seed, case, f"no end after {LONGEST:g} seconds"))
                    case += 1
                    break
                message = ours.recv()
                if isinstance(message, int):
                    case, started = message, True
                    end = min(end, time.monotonic() + seconds)
                    continue
                _take(report, seed, case, *message)
        except EOFError:
            report.faults.append(_fault(seed, case, "the process ended"))
            case += 1
        finally:
            process.kill()
            process.join()
            ours.close()
    return report


def _take(report: Report, seed: int, case: int, name: str, problem: str, rows: int, seconds: float) -> None:
    report.cases += 1
    report.by_kind[name] += 1
    if seconds > report.slowest:
        report.slowest, report.slowest_case = seconds, case
    report.rows_compared += rows
    if not problem:
        report.read += 1
    elif problem.startswith("error "):
        report.refused += 1
        report.errors[problem.removeprefix("error ")] += 1
    else:
        report.faults.append(_fault(seed, case, problem))


def _fault(seed: int, case: int, problem: str) -> Fault:
    name, files, options, _ = case_of(seed, case)
    return Fault(case, name, problem, options, {f: base64.b64encode(content).decode() for f, content in files.items()})
