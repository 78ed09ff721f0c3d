"""A Dataset of data that came with a split: which interactions are training, validation targets and test targets."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.data.dataset import Dataset
from segue.data.order import time_order
from segue.data.preparing.item_lists import Lists, chained, unread_items
from segue.data.ragged import offsets_of
from segue.data.reading.read import Log, ReadOptions, open_source
from segue.data.sessions import converted
from segue.data.stored import N_PARTS, is_in_order
from segue.data.vocabulary import Vocabulary, as_ids
from segue.errors import ConfigError, DataError
from segue.plain_text import read_text, require_text

TRAINING, VALIDATION_HISTORY, VALIDATION, TEST_HISTORY, TEST = range(N_PARTS)
"""Values of `Dataset.parts`."""

_WORDS = {
    **dict.fromkeys(("train", "training"), TRAINING),
    **dict.fromkeys(("valid", "val", "validation", "dev"), VALIDATION),
    **dict.fromkeys(("test", "testing"), TEST),
}
_LISTED = "train, valid (val, validation, dev) or test"
_OTHER = (".item", ".user", ".link", ".kg", ".net", ".json", ".yaml", ".yml", ".md", ".py")
"""Ends of files beside a split that hold no interactions."""
_LIST_COLUMN = re.compile(r"(?P<item>[\w.]+)_list:token_seq")
_ROLES = ("time", "rating")


@dataclass(frozen=True)
class _Rows:
    """Single interactions: columns `user`, `item`, `part` and, if there are any, `time` and `rating`."""

    name: str
    frame: pl.DataFrame
    time_unit: str | None = None


@dataclass(frozen=True)
class _Steps:
    """Targets with the items before them: columns `user`, `items` (a list) and `item`, all of one part."""

    name: str
    frame: pl.DataFrame
    part: int


def given_dataset(
    train: Any,
    validation: Any = None,
    test: Any = None,
    *,
    part: str | int | None = None,
    reading: ReadOptions | None = None,
) -> Dataset:
    """Read data that came with a split; arguments, results and errors are those of `segue.given_split`.

    Returns
    -------
    Dataset
        In memory, with `parts`. Within a user, its interactions are sorted by part, then time.
    """
    sources = _sources(train, validation, test, part, reading or ReadOptions())
    sources = _alike(_numbered(sources))
    users = Vocabulary(pl.concat([one.frame["user"] for one in sources]).unique())
    items = [one.frame["item"] for one in sources]
    items += [one.frame["items"].explode().drop_nulls() for one in sources if isinstance(one, _Steps)]
    catalogue = Vocabulary(pl.concat(items).unique())
    log = _encoded(sources, users, catalogue)
    offsets = offsets_of(np.bincount(log.users, minlength=len(users) + 1))
    dataset = Dataset(
        items=log.items.astype(np.int32),
        offsets=offsets,
        users=users,
        catalogue=catalogue,
        times=log.times,
        ratings=log.ratings,
        time_unit=None if log.times is None else next(one.time_unit for one in sources if isinstance(one, _Rows)),
        parts=log.parts,
        in_order=is_in_order(log.times, offsets),
    )
    counts = {name: _counts(dataset, code) for name, code in (("validation", VALIDATION), ("test", TEST))}
    for name, count in counts.items():
        _warn(name, count)
    rows = {"users": len(users), "items": len(catalogue), "interactions": len(log.items)}
    metadata = {
        "source": ", ".join(dict.fromkeys(one.name for one in sources)),
        "steps": [{"step": "read", **rows}],
        "given": counts,
    }
    return replace(dataset, metadata=metadata)


# ---- sources --------------------------------------------------------------------------------------------------------


def _sources(train: Any, validation: Any, test: Any, part: str | int | None, reading: ReadOptions) -> list[Any]:
    """All parts as `_Rows` and `_Steps`."""
    if part is not None:
        if validation is not None or test is not None:
            raise ConfigError(f"part={part!r} is a column of one source: leave validation and test out.")
        return [_by_column(train, part, reading)]
    if test is None:
        if validation is not None:
            raise ConfigError("a split needs a test part: pass test=, too.")
        if isinstance(train, str | Path) and Path(train).is_dir():
            return _of_folder(Path(train), reading)
        return [_of_lines(train, reading)]
    given = [(TRAINING, train), (VALIDATION, validation), (TEST, test)]
    return [_read(source, code, reading) for code, source in given if source is not None]


def _read(source: Any, code: int, reading: ReadOptions) -> _Rows | _Steps:
    """One file or frame, all of one part."""
    steps = _item_lists(source, code, reading)
    if steps is not None:
        return steps
    log = open_source(source, _without_sessions(reading), quiet=True).check()
    return _Rows(log.source, _columns(log).with_columns(part=pl.lit(code, pl.Int8)), log.time_unit)


def _without_sessions(reading: ReadOptions) -> ReadOptions:
    if reading.session not in (None, False):
        raise ConfigError(f"session={reading.session!r}: data with a split of their own have no sessions.")
    return replace(reading, session=False)


def _columns(log: Log) -> pl.DataFrame:
    """The log in memory, in the order of time within each user."""
    frame = log.collect()
    return frame.sort("time", maintain_order=True) if "time" in frame.columns else frame


def _by_column(source: Any, part: str | int, reading: ReadOptions) -> _Rows:
    """One source with a column that names the part of each row."""
    _without_sessions(reading)
    log = open_source(source, replace(reading, session=part), quiet=True).check()  # a column of words, as sessions are
    frame = _columns(log)
    words = frame["session"].cast(pl.String).str.to_lowercase().str.strip_chars()
    codes = words.replace_strict(_WORDS, default=None, return_dtype=pl.Int8)
    if codes.null_count():
        odd = frame["session"].filter(codes.is_null())
        raise DataError(f"{log.source}: the column {part!r} holds {odd[0]!r}: expected {_LISTED}.")
    return _Rows(log.source, frame.drop("session").with_columns(part=codes), log.time_unit)


def _of_lines(source: Any, reading: ReadOptions) -> _Rows:
    """One line per user, as S3-Rec's files: the last item is the test target, the one before it that of validation."""
    log = open_source(source, _without_sessions(reading), quiet=True).check()
    if log.format != "user-lines":
        raise DataError(
            f"{log.source} is one log without a split of its own: pass validation= and test=, or part= with the column "
            "that names the part of each row. A log alone is split by segue.leave_last_out and others."
        )
    after = pl.len().over("user") - 1 - pl.int_range(pl.len()).over("user")
    enough = pl.len().over("user") > 2
    code = pl.when(enough & (after == 0)).then(TEST).when(enough & (after == 1)).then(VALIDATION).otherwise(TRAINING)
    return _Rows(log.source, log.collect().with_columns(part=code.cast(pl.Int8)))


def _of_folder(folder: Path, reading: ReadOptions) -> list[_Rows | _Steps]:
    """The files of a split, by their names: RecBole's `NAME.train.inter`, gSASRec's folders, `train.csv`, ….

    Raises
    ------
    DataError
        A part is missing, or several files could be one.
    """
    if (folder / "train" / "input.txt").is_file():
        return _of_gsasrec(folder)
    files: dict[int, list[Path]] = {}
    for file in sorted(one for one in folder.iterdir() if one.is_file() and not one.name.endswith(_OTHER)):
        for word in set(re.split(r"[._\-]", file.name.lower())) & _WORDS.keys():
            files.setdefault(_WORDS[word], []).append(file)
    for code, name in ((TRAINING, "train"), (TEST, "test")):
        if code not in files:
            there = ", ".join(sorted(one.name for one in folder.iterdir())[:6]) or "nothing"
            raise DataError(
                f'{folder} holds no file with "{name}" in its name ({there}): pass train, validation= and test= each.'
            )
    for several in files.values():
        if len(several) > 1:
            names = ", ".join(one.name for one in several)
            raise DataError(f"{folder}: {names} could be the same part: pass train, validation= and test= each.")
    return [_read(files[code][0], code, reading) for code in sorted(files)]


def _of_gsasrec(folder: Path) -> list[_Rows | _Steps]:
    """gSASRec's files: a line of items per user in `train/input.txt`; histories and targets of the other parts.

    The lines of training and test are those of the same users. Lines of validation are found again in the test, whose
    history is theirs with the target behind it.
    """
    lines = {
        (part, kind): _lines(folder / part / f"{kind}.txt")
        for part, kind in (
            ("train", "input"),
            ("val", "input"),
            ("val", "output"),
            ("test", "input"),
            ("test", "output"),
        )
    }
    for part in ("val", "test"):
        if len(lines[part, "input"]) != len(lines[part, "output"]):
            raise DataError(f"{folder / part}: input.txt and output.txt have different numbers of lines.")
    n = len(lines["test", "input"])
    if len(lines["train", "input"]) != n:
        raise DataError(
            f"{folder}: train/input.txt has {len(lines['train', 'input']):,} lines and test/input.txt {n:,}: expected "
            "a line for the same user at the same place."
        )
    users = pl.int_range(1, n + 1, dtype=pl.Int64, eager=True)
    train = pl.DataFrame({"user": users, "item": lines["train", "input"].str.split(" ")}).explode("item")
    validation = pl.DataFrame(
        {
            "key": lines["val", "input"] + " " + lines["val", "output"],
            "items": lines["val", "input"].str.split(" "),
            "item": lines["val", "output"],
        }
    )
    validation = validation.with_columns(copy=pl.int_range(pl.len()).over("key"))  # users may have equal histories
    owners = pl.DataFrame({"key": lines["test", "input"], "user": users})
    owners = owners.with_columns(copy=pl.int_range(pl.len()).over("key"))
    validation = validation.join(owners, on=("key", "copy"), how="left", maintain_order="left")
    lost = validation["user"].is_null().arg_true()
    if len(lost):
        raise DataError(
            f"{folder / 'val'}: line {int(lost[0]) + 1:,} of input.txt, with its target behind it, is no line of "
            "test/input.txt, so its user is not known."
        )
    test = pl.DataFrame(
        {"user": users, "items": lines["test", "input"].str.split(" "), "item": lines["test", "output"]}
    )
    train = train.filter(pl.col("item").is_not_null() & (pl.col("item") != ""))
    return [
        _Rows(str(folder), train.with_columns(part=pl.lit(TRAINING, pl.Int8))),
        _Steps(str(folder), validation.select("user", "items", "item"), VALIDATION),
        _Steps(str(folder), test, TEST),
    ]


def _lines(file: Path) -> pl.Series:
    """Lines of a text file, with single blanks."""
    try:
        text = read_text(file)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error}") from None
    return pl.Series(text.splitlines(), dtype=pl.String).str.strip_chars().str.replace_all(r"\s+", " ")


def _item_lists(source: Any, code: int, reading: ReadOptions) -> _Steps | None:
    """A RecBole file with a column of item lists (`item_id_list:token_seq`); None for anything else."""
    path = Path(source) if isinstance(source, str | Path) else None
    if path is None or not path.is_file():
        return None
    with path.open("rb") as stream:
        header = stream.readline(1 << 20).decode("utf-8", errors="replace").strip("\ufeff\r\n").split("\t")
    lists = [match["item"] for match in map(_LIST_COLUMN.fullmatch, header) if match]
    names = [field.partition(":")[0] for field in header]
    item = reading.item if isinstance(reading.item, str) else next((one for one in lists if one in names), None)
    if not lists or item is None:
        return None
    users = [name for name in ("user_id", "session_id", "user", "session") if name in names]
    user = reading.user if isinstance(reading.user, str) else next(iter(users), None)
    if user not in names or f"{item}_list" not in names:
        raise DataError(f"{path} has the columns {', '.join(header)}: name that of the users with user=.")
    require_text(path)
    try:
        frame = pl.read_csv(path, separator="\t", infer_schema=False, quote_char=None, new_columns=names)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    frame = frame.select(user=user, items=pl.col(f"{item}_list").str.strip_chars().str.split(" "), item=item)
    if not len(frame) or frame["user"].null_count() or frame["item"].null_count() or frame["items"].null_count():
        raise DataError(f"{path}: expected a user, a list of items and an item in every row.")
    return _Steps(str(path), frame, code)


# ---- one type of ids ------------------------------------------------------------------------------------------------


def _numbered(sources: Sequence[_Rows | _Steps]) -> list[_Rows | _Steps]:
    """Sources in which every target with a list of its own has one user: session 7 with three becomes 7#1, 7#2, 7#3.

    Raises
    ------
    DataError
        A user with several such targets has interactions in training.
    """
    trained = [one.frame["user"].cast(pl.String) for one in sources if isinstance(one, _Rows) or one.part == TRAINING]
    result: list[_Rows | _Steps] = []
    for one in sources:
        twice = one.frame["user"].is_duplicated() if isinstance(one, _Steps) and one.part != TRAINING else None
        if twice is None or not twice.any():
            result.append(one)
            continue
        text = pl.col("user").cast(pl.String)
        known = one.frame["user"].cast(pl.String).filter(twice).is_in(pl.concat(trained).implode())
        if known.any():
            user = one.frame["user"].filter(twice).filter(known)[0]
            raise DataError(
                f"{one.name}: the user {user!r} has several targets, each with a history of its own, and "
                "interactions in training: expected one target for each such user."
            )
        number = (pl.int_range(pl.len()).over("user") + 1).cast(pl.String)
        named = pl.when(twice).then(text + "#" + number).otherwise(text)
        result.append(replace(one, frame=one.frame.with_columns(user=named)))
    return result


def _alike(sources: Sequence[_Rows | _Steps]) -> list[_Rows | _Steps]:
    """Sources whose ids have one type: integers, if all are written as such, else text."""
    frames = {position: one.frame for position, one in enumerate(sources)}
    for columns in (("user",), ("item", "items")):
        integers = all(
            _are_integers(frame[name]) for frame in frames.values() for name in columns if name in frame.columns
        )
        kind = pl.Int64 if integers else pl.String
        for position, frame in frames.items():
            types = {name: pl.List(kind) if name == "items" else kind for name in columns if name in frame.columns}
            frames[position] = frame.cast(types)  # type: ignore[arg-type]
    for position, one in enumerate(sources):
        for role in ("user", "item"):
            if frames[position][role].null_count():
                raise DataError(f"{one.name}: an id of a {role} is missing.")
    return [replace(one, frame=frames[position]) for position, one in enumerate(sources)]


def _are_integers(column: pl.Series) -> bool:
    flat = column.explode().drop_nulls() if isinstance(column.dtype, pl.List) else as_ids(column)
    if flat.dtype == pl.Int64:
        return True
    numbers = flat.cast(pl.Int64, strict=False)
    return not numbers.null_count() and bool((numbers.cast(pl.String) == flat).all())


# ---- arrays ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Encoded:
    """Interactions in codes; all arrays have n elements."""

    users: npt.NDArray[np.int64]
    items: npt.NDArray[np.int64]
    parts: npt.NDArray[np.int8]
    times: npt.NDArray[np.int64] | None = None
    ratings: npt.NDArray[np.float32] | None = None

    def sorted(self) -> _Encoded:
        """The interactions by user, part and, if there are times, time; others keep their order."""
        order = time_order(self.users * N_PARTS + self.parts, self.times)
        if order is None:
            return self
        return _Encoded(
            self.users[order],
            self.items[order],
            self.parts[order],
            None if self.times is None else self.times[order],
            None if self.ratings is None else self.ratings[order],
        )

    def with_rows(
        self, users: npt.NDArray[np.int64], items: npt.NDArray[np.int64], parts: npt.NDArray[np.int8]
    ) -> _Encoded:
        """These interactions and others behind them, sorted; without times and ratings."""
        return _Encoded(
            np.concatenate([self.users, users]),
            np.concatenate([self.items, items]),
            np.concatenate([self.parts, parts]),
        ).sorted()


def _encoded(sources: Sequence[_Rows | _Steps], users: Vocabulary, catalogue: Vocabulary) -> _Encoded:
    """All interactions in codes, sorted."""
    steps = sorted((one for one in sources if isinstance(one, _Steps)), key=lambda one: one.part)
    rows = [one for one in sources if isinstance(one, _Rows)]
    log = _encoded_rows(rows, users, catalogue, keep=not steps).sorted()
    for one in steps:
        lists = Lists.of(
            users.encode(one.frame["user"]),
            one.frame["items"].list.len().to_numpy().astype(np.int64),
            catalogue.encode(one.frame["items"].explode().drop_nulls()),
            catalogue.encode(one.frame["item"]),
        )
        names = (one.name, users)
        if one.part == TRAINING:
            owners, items = chained(lists, *names)
            log = log.with_rows(owners, items, np.full(len(items), TRAINING, np.int8))
            continue
        earlier = log.parts < one.part
        owners, items = unread_items(lists, log.users[earlier], log.items[earlier], *names)
        log = log.with_rows(owners, items, np.full(len(items), one.part - 1, np.int8))
        log = log.with_rows(lists.users, lists.targets, np.full(len(lists.users), one.part, np.int8))
    return log


def _encoded_rows(rows: Sequence[_Rows], users: Vocabulary, catalogue: Vocabulary, keep: bool) -> _Encoded:
    """Single interactions in codes; with times and ratings, if `keep` and if all sources have them.

    Raises
    ------
    DataError
        Some sources have times or ratings, and others have none.
    """
    columns: Mapping[str, list[pl.Series]] = {}
    if keep:
        for role in _ROLES:
            having = [one for one in rows if role in one.frame.columns]
            if having and len(having) < len(rows):
                lacking = next(one for one in rows if role not in one.frame.columns)
                raise DataError(
                    f"{having[0].name} has a column of {role}s and {lacking.name} has none: name it with {role}=, or "
                    f"leave it out with {role}=False."
                )
            columns = {**columns, **({role: [one.frame[role] for one in rows]} if having else {})}
    empty = np.zeros(0, dtype=np.int64)
    units = [one.time_unit or "s" for one in rows]
    times = [
        converted(column.to_numpy(), unit, units[0])
        for column, unit in zip(columns.get("time", ()), units, strict=False)
    ]
    ratings = [column.to_numpy() for column in columns.get("rating", ())]
    return _Encoded(
        np.concatenate([empty, *(users.encode(one.frame["user"]) for one in rows)]),
        np.concatenate([empty, *(catalogue.encode(one.frame["item"]) for one in rows)]),
        np.concatenate([empty.astype(np.int8), *(one.frame["part"].to_numpy() for one in rows)]),
        np.concatenate(times) if times else None,
        np.concatenate(ratings).astype(np.float32) if ratings else None,
    )


# ---- what training lacks --------------------------------------------------------------------------------------------


def _counts(dataset: Dataset, code: int) -> dict[str, int]:
    """Users, items and targets of a part, and how many of them training lacks."""
    assert dataset.parts is not None
    users = np.repeat(np.arange(dataset.n_users + 1), dataset.lengths)
    learnt, targets = dataset.parts == TRAINING, dataset.parts == code
    before = dataset.parts < code
    known_users, with_history = (
        np.bincount(users[mask], minlength=dataset.n_users + 1) > 0 for mask in (learnt, before)
    )
    known_items = np.bincount(dataset.items[learnt], minlength=dataset.n_items + 1) > 0
    of_part = np.unique(users[targets])
    item_codes = np.unique(dataset.items[targets])
    unknown, lost = int((~known_users[of_part]).sum()), int((~with_history[of_part]).sum())
    return {
        "users": len(of_part),
        "users_without_training": unknown,
        "users_not_evaluated": lost if unknown == len(of_part) else unknown,
        "items": len(item_codes),
        "items_without_training": int((~known_items[item_codes]).sum()),
        "targets": int(targets.sum()),
        "targets_without_training": int((~known_items[dataset.items[targets]]).sum()),
    }


def _warn(name: str, counts: Mapping[str, int]) -> None:
    """Say in warnings which users and items of a part training lacks."""
    if counts["users_without_training"]:
        lost = counts["users_not_evaluated"]
        outcome = f"{lost:,} of them are not evaluated" if lost else "they are answered from their histories alone"
        warnings.warn(
            f"{counts['users_without_training']:,} of {counts['users']:,} users of the {name} part are not in "
            f"training: {outcome}.",
            stacklevel=5,
        )
    if counts["items_without_training"]:
        warnings.warn(
            f"{counts['items_without_training']:,} of {counts['items']:,} items of the {name} part are not in "
            f"training: {counts['targets_without_training']:,} of {counts['targets']:,} targets, which a model can "
            "hardly find.",
            stacklevel=5,
        )
