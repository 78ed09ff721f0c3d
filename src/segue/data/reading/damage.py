"""What is wrong with a file, and in which line: looked for only once something is known to be wrong."""

from __future__ import annotations

import csv
import itertools

from segue.data.reading.formats import Layout, parse_record, quote
from segue.data.reading.scanning import Part
from segue.errors import DataError


def line_of(part: Part, layout: Layout, row: int) -> int:
    """The line in the file of a row number: they differ where a quoted field spans lines or lines are blank."""
    if part.path is None or not (layout.quoted or layout.format == "jsonl"):
        return row
    with part.path.open(encoding="utf-8", errors="replace", newline="") as stream:
        if layout.format == "jsonl":
            full = (number for number, line in enumerate(stream, 1) if line.strip())
            return next(itertools.islice(full, row - 1, None), row)
        reader = csv.reader(stream, delimiter=layout.separator)
        next(itertools.islice(reader, row - 1, None), None)
        return reader.line_num


def find_damage(part: Part, layout: Layout) -> DataError | None:
    """The first line of a file that cannot be read at all, as the error to raise."""
    if part.path is None or layout.format in ("parquet", "python-dict"):
        return None
    size, where = len(layout.fields), part.name
    with part.path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                return DataError(
                    f"{where}, line {number}: byte {line[error.start]:#04x} at column {error.start + 1} is not UTF-8. "
                    f"Convert the file, for example with iconv -f latin1 -t utf-8."
                )
            if layout.format == "jsonl" and text.strip() and parse_record("jsonl", text) is None:
                return DataError(f"{where}, line {number}: expected a JSON object, found {quote(text.strip())}.")
    if not layout.quoted:
        return None
    with part.path.open(encoding="utf-8", newline="") as text_stream:
        reader = csv.reader(text_stream, delimiter=layout.separator)
        try:
            bad = next((row for row in reader if row and len(row) != size), None)
        except csv.Error as error:
            return DataError(f"{where}, line {reader.line_num}: {error}.")
        if bad is not None:
            return broken_line(where, reader.line_num, len(bad), size, layout.separator.join(bad), quoted=True)
    return None


def broken_line(
    name: str, number: int, found: int, expected: int, line: str, *, count: int = 1, quoted: bool = False
) -> DataError:
    """The error for lines with a wrong number of fields; in quoted text, such lines cannot be left out."""
    more = f" {count} lines are like this." if count > 1 else ""
    way_out = "" if quoted else ", or leave such lines out with bad_rows='drop'"
    return DataError(
        f"{name}, line {number} has {found} fields, expected {expected}: {quote(line)}.{more} "
        f"Correct the file{way_out}."
    )


def broken_session(name: str, number: int, line: str, *, count: int = 1) -> DataError:
    """The error for a line of a session file that is no session."""
    fields = [field.strip() for field in line.split(",")]
    items = fields[3:]
    if len(fields) < 3:
        found = f"has {len(fields)} fields; expected user,time,n,item1,…,itemn"
    elif not fields[2].isdigit():
        found = f'has "{fields[2]}" as the number of items; expected a whole number'
    elif not items and fields[2] == "0":
        found = "is an empty session; expected at least one item"
    elif len(items) != int(fields[2]):
        found = f"says {fields[2]} items, and {len(items)} follow"
    else:
        reserved = next((item for item in items if item in ("0", "1")), "0")
        found = f"holds the item {reserved}; expected ids from 2, since 0 and 1 mark the begin and end of a basket"
    more = f" {count:,} items stand in lines like this." if count > 1 else ""
    return DataError(
        f"{name}, line {number} {found}: {quote(line)}.{more} "
        f"Correct the file, or leave such lines out with bad_rows='drop'."
    )
