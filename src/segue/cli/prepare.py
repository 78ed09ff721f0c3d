"""`segue prepare`: turn a file, or a public dataset by name, into a Dataset folder."""

from __future__ import annotations

import shlex
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from segue.cli.options import POSITIONAL, OptionParser
from segue.cli.output import note, progress_bar, write_json, write_table
from segue.cli.reading import ReadingOptions, reading_arguments
from segue.engines.engine import Engine
from segue.errors import ConfigError, DataError, StorageError, nearest
from segue.settings import Count, PathText, Positive, Settings, ShardCount, ShareAboveZero, Size, Word
from segue.stores import is_url, name_of

if TYPE_CHECKING:
    from segue.data.dataset import Dataset
    from segue.data.reading.read import Log
    from segue.data.shards import Shards

_NOTES = """\
  segue prepare ml-1m --out data/ml-1m
  segue prepare log.csv --out data/shop --items products.csv --item-key sku --title title
  segue prepare ml-100k.train.inter --validation ml-100k.valid.inter --test ml-100k.test.inter --out data/given
  segue prepare tuesday.csv --add-to data/mine --out data/mine
  segue prepare 'logs/*.csv.gz' --out data/logs --user visitor --item sku --time date --min-rating 4
  segue prepare 'logs/*.parquet' --out data/logs --shards 8 --processes 4
  segue prepare 's3://bucket/logs/*.parquet' --out s3://bucket/data --shards 8

Format, separator, header and columns are detected. If the file leaves one of them open, the error names the option to
give. `segue datasets` lists the public datasets."""


@dataclass(frozen=True)
class PrepareOptions(Settings):
    """Source and target."""

    source: PathText = field(metadata=POSITIONAL)
    """A file, a folder, a pattern in quotes, or the name of a public dataset."""

    out: PathText
    """Folder of the Dataset. Or a place in a store, as s3://bucket/folder: the Dataset is made in a temporary folder
    (TMPDIR), and uploaded."""

    add_to: PathText | None = None
    """Dataset to add the log to, with the options of its preparation; the result goes to --out, which may be the same
    folder."""

    shards: ShardCount | None = None
    """Number of shards to divide the users into; --engine and --processes then say who works on them. One Dataset when
    not given."""

    overwrite: bool | None = None
    """Replace a Dataset in --out; when not given, true. Anything else that is there is never replaced."""

    quiet: bool = False
    """Show no progress."""

    json: bool = False
    """Write the summary as JSON."""


@dataclass(frozen=True)
class FilterOptions(Settings):
    """Filters, applied in this order."""

    oldest: ShareAboveZero | None = None
    """Share of the rows to keep, the oldest by time; all when not given."""

    min_rating: float | None = None
    """Lowest rating of the interactions to keep."""

    duplicates: Literal["drop", "keep", "first", "last"] = "drop"
    """Interactions with the same user, item and time: keep one (drop) or all (keep). Or keep only the first or last of
    each user with each item."""

    newest_days: Positive | None = None
    """Days before the newest interaction to keep; all when not given. The rule is stored, and --add-to applies it
    again."""

    k_core: Size = 0
    """Fewest interactions of every user and item; rare ones are dropped until nothing changes."""

    min_per_user: Size | None = None
    """Fewest interactions of every user; --k-core when not given."""

    min_per_item: Size | None = None
    """Fewest interactions of every item; --k-core when not given."""

    rounds: Count | None = None
    """Number of rounds that drop rare items, then rare users; until nothing changes when not given."""

    first: Literal["items", "users"] = "items"
    """Items or users, to be dropped first in each of these rounds."""


@dataclass(frozen=True)
class SessionOptions(Settings):
    """Sessions."""

    sessions: Literal["column", "day", "none"] | None = None
    """Sessions by a column of the log, or by calendar day (UTC). When not given, by column if there is one."""

    session_gap: Positive | None = None
    """Longest pause within a session, in seconds, for sessions by pauses; 1800 is usual."""


@dataclass(frozen=True)
class TableOptions(Settings):
    """Tables of items and users."""

    items: PathText | None = None
    """Table of the items: CSV, RecBole's .item, Parquet or JSON. Its items that nobody has taken join the catalogue."""

    item_key: Word | None = None
    """Column of the table with the ids; found by its name when not given."""

    title: Word | None = None
    """Column of the table with the names that people read; found by its name when not given."""

    item_kinds: tuple[str, ...] | None = None
    """Kinds of columns, as in size=category: text, category, categories, number, moment, vector; found when not given.
    """

    table_items: Literal["all", "known"] = "all"
    """Items of the table that join the catalogue: all, or only those with an interaction after the filters."""

    users: PathText | None = None
    """Table of the users. Users without interactions are left out."""

    user_key: Word | None = None
    """Column of the table of users with the ids."""


@dataclass(frozen=True)
class GivenOptions(Settings):
    """A split that the data came with."""

    given: bool = False
    """Keep the split of the source: a folder of RecBole's or gSASRec's files, or files with train, valid and test in
    their names; or a file with one line per user, as S3-Rec's, whose last items are the targets."""

    validation: PathText | None = None
    """File of the validation part; the source is the training part. Needs --test."""

    test: PathText | None = None
    """File of the test part; the source is the training part."""

    part: Word | None = None
    """Column of the source that names the part of each row: train, valid (val, validation, dev) or test."""


@dataclass(frozen=True)
class PublicOptions(Settings):
    """Public datasets."""

    archive: PathText | None = None
    """Local copy of the archive, to be read in place of a download."""

    cache: PathText | None = None
    """Folder for downloads; the user's cache folder when not given."""


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = OptionParser("prepare", _NOTES)
    for group in (
        PrepareOptions,
        Engine,
        ReadingOptions,
        FilterOptions,
        SessionOptions,
        TableOptions,
        GivenOptions,
        PublicOptions,
    ):
        parser.add_options(group)
    parser.read(argv)
    options = parser.get(PrepareOptions)
    if is_url(options.out):
        _make_in_store(parser, options)
    else:
        _report(_made(parser, options), options)
    return 0


def _make_in_store(parser: OptionParser, options: PrepareOptions) -> None:
    """Make the Dataset in a temporary folder, upload it, and report. If the upload fails, the folder stays."""
    from segue.transfers import check_place, upload

    check_place(options.out, "dataset.json" if options.shards is None else "shards.json")
    place = Path(tempfile.mkdtemp(prefix="segue-"))
    folder, is_kept = place / "data", False
    try:
        made = _made(parser, replace(options, out=str(folder)))
        try:
            with progress_bar(options.quiet) as progress:
                upload(folder, options.out, progress=progress)
        except (StorageError, KeyboardInterrupt):
            is_kept = True
            note(f"The Dataset is in {folder}: segue push {shlex.quote(str(folder))} {name_of(options.out)}")
            raise
        _report(made, options)  # it is there now
    finally:
        if not is_kept:
            shutil.rmtree(place, ignore_errors=True)


def _made(parser: OptionParser, options: PrepareOptions) -> Dataset | Shards:
    """The Dataset that the options ask for, saved in --out."""
    chosen, sessions = parser.get(FilterOptions), parser.get(SessionOptions)
    engine = parser.get(Engine)
    if options.shards is None and engine != Engine():
        raise ConfigError(
            "--engine, --processes and --address divide the work by shards: give --shards, or leave them out."
        )
    if options.add_to is not None:
        _refuse_shards(options, "a log is added to one Dataset as a whole")
        _refuse(parser.get(PublicOptions), "a public dataset is not added to another")
        _refuse(sessions, f"the sessions of {options.add_to} are divided as before")
        _refuse(chosen, f"the filters of {options.add_to} apply again", but="newest_days")
        with parser.errors_as_typed():
            return _grown(options.add_to, options, parser.get(ReadingOptions), chosen.newest_days)
    tables, given = parser.get(TableOptions), parser.get(GivenOptions)
    if given != GivenOptions():
        why = "a split that the data came with is kept as it is"
        _refuse_shards(options, why)
        for refused in (chosen, sessions, parser.get(PublicOptions)):
            _refuse(refused, why)
        with parser.errors_as_typed():
            return _with_split(given, tables, parser.get(ReadingOptions), options)

    arguments: dict[str, Any] = {
        "oldest": chosen.oldest,
        "k_core": chosen.k_core,
        "min_per_user": chosen.min_per_user,
        "min_per_item": chosen.min_per_item,
        "rounds": chosen.rounds,
        "first": chosen.first,
        "min_rating": chosen.min_rating,
        "duplicates": chosen.duplicates,
        "newest_days": chosen.newest_days,
        "sessions": sessions.sessions,
        "session_gap": sessions.session_gap,
        "items": tables.items,
        "item_key": tables.item_key,
        "title": tables.title,
        "item_kinds": _kinds(tables.item_kinds),
        "table_items": tables.table_items,
        "users": tables.users,
        "user_key": tables.user_key,
        "overwrite": options.overwrite,
    }
    with parser.errors_as_typed():
        source, reading = _source(options, parser.get(ReadingOptions), parser.get(PublicOptions))
    with parser.errors_as_typed(), progress_bar(options.quiet) as progress:
        made: Dataset | Shards
        if options.shards is None:
            from segue.data.preparing.prepare import prepare

            made = prepare(source, out=options.out, progress=progress, **arguments)
        else:
            from segue.data.preparing.shards import prepare_shards

            made = prepare_shards(
                source,
                options.out,
                shards=options.shards,
                engine=engine,
                progress=progress,
                **reading,
                **arguments,
            )
            if made.metadata["bad_rows_dropped"]:
                note(f"warning: {made.metadata['bad_rows_dropped']:,} bad rows of {options.source} were left out.")
    return made


def _source(
    options: PrepareOptions, reading: ReadingOptions, public: PublicOptions
) -> tuple[Log | str, dict[str, Any]]:
    """The log. For shards it is the path of the files, which workers read, and the options to read them with."""
    from segue.data.public.fetch import DATASETS

    if options.shards is None or (options.source in DATASETS and not Path(options.source).exists()):
        log = _log(options.source, reading, public)
        if log.dropped:
            note(f"warning: {log.dropped:,} bad rows of {options.source} were left out.")
        return log, {}
    _check_file(options.source, public)
    return options.source, reading_arguments(reading)


def _log(source: str, reading: ReadingOptions, public: PublicOptions) -> Log:
    """Open a public dataset if the source is the name of one, else read files."""
    from segue.data.public.fetch import DATASETS, open_public
    from segue.data.reading.read import read

    if source in DATASETS and not Path(source).exists():
        _refuse(reading, f"{source} is a public dataset, which is read as it should be")
        from segue.data.public.download import download_bar

        with download_bar(source) as bar:
            return open_public(source, archive=public.archive, cache=public.cache, progress=bar)
    _check_file(source, public)
    return read(source, **reading_arguments(reading))


def _check_file(source: str, public: PublicOptions) -> None:
    """Raise an error if the source looks like the name of a public dataset, and is none."""
    from segue.data.public.fetch import DATASETS

    _refuse(public, f"{source} is not the name of a public dataset")
    if not Path(source).exists() and not set(source) & set("./\\*?["):
        raise DataError(f'there is no file "{source}", and no public dataset of that name: {nearest(source, DATASETS)}')


def _with_split(given: GivenOptions, tables: TableOptions, reading: ReadingOptions, options: PrepareOptions) -> Dataset:
    """The Dataset of a source with a split of its own, in --out."""
    from segue.data.dataset import Dataset
    from segue.data.preparing.given import given_dataset
    from segue.data.preparing.tables import attach, open_table
    from segue.data.reading.read import ReadOptions
    from segue.data.splits.given import Given
    from segue.files import check_folder

    check_folder(Path(options.out), "dataset", options.overwrite)
    read = ReadOptions(**reading_arguments(reading))
    part = given.part if given.part is None or not given.part.isdigit() else int(given.part)
    data = given_dataset(options.source, given.validation, given.test, part=part, reading=read)
    Given().split(data)  # an error, if nobody can be evaluated
    kinds = _kinds(tables.item_kinds)
    if tables.items is not None:
        source = open_table(tables.items, "item", key=tables.item_key, title=tables.title, kinds=kinds)
        data = attach(data, source, tables.table_items)
    if tables.users is not None:
        data = attach(data, open_table(tables.users, "user", key=tables.user_key))
    return Dataset.open(data.save(options.out, overwrite=options.overwrite), verify=False)


def _grown(former: str, options: PrepareOptions, reading: ReadingOptions, newest_days: float | None) -> Dataset:
    """The Dataset of --add-to with the log."""
    from segue.data.dataset import Dataset

    data = Dataset.open(former)
    with progress_bar(options.quiet) as progress:
        return data.append(
            options.source,
            newest_days=newest_days,
            out=options.out,
            overwrite=options.overwrite,
            progress=progress,
            **reading_arguments(reading),
        )


def _kinds(words: Sequence[str] | None) -> dict[str, str] | None:
    """Kinds by column, from words such as size=category."""
    if words is None:
        return None
    for word in words:
        if "=" not in word:
            raise ConfigError(f"--item-kinds: expected COLUMN=KIND, as in size=category, found {word!r}.")
    return {column: kind for column, _, kind in (word.rpartition("=") for word in words)}


def _matches(role: str, table: Mapping[str, Any]) -> str:
    """Sentence about the ids that a table shares with the log."""
    known = table["matched"] + table["without_row"]
    parts = [f"\n{table['matched']:,} of {known:,} {role}s have a row in {table['source']}"]
    if table["cold"]:
        parts.append(f"{table['cold']:,} more items of it, which nobody has taken, joined the catalogue")
    if table["left_out"]:
        parts.append(f"{table['left_out']:,} rows of other {role}s were left out")
    return "; ".join(parts)


def _refuse(group: Settings, why: str, but: str = "") -> None:
    """Raise a ConfigError if any option of the group was given, except the one named `but`."""
    given = [one.name for one in fields(group) if getattr(group, one.name) != one.default and one.name != but]
    if given:
        raise ConfigError(f"{why}: leave out " + ", ".join("--" + name.replace("_", "-") for name in given) + ".")


def _refuse_shards(options: PrepareOptions, why: str) -> None:
    """Raise a ConfigError if --shards was given."""
    if options.shards is not None:
        raise ConfigError(f"{why}: leave out --shards.")


def _report(dataset: Dataset | Shards, options: PrepareOptions) -> None:
    from segue.data.shards import Shards

    if isinstance(dataset, Shards):
        sessions = dataset.n_sessions
    else:
        sessions = None if dataset.session_offsets is None else len(dataset.sessions)
    if options.json:
        out = name_of(options.out) if is_url(options.out) else options.out
        write_json({"dataset": out, "sessions": sessions, **dataset.metadata})
        return
    steps = dataset.metadata["steps"]
    write_table(("step", "users", "items", "interactions"), [tuple(step.values()) for step in steps])
    for role in ("item", "user"):
        if f"{role}_table" in dataset.metadata:
            note(_matches(role, dataset.metadata[f"{role}_table"]))
    for name, count in dataset.metadata.get("given", {}).items():
        note(f"\n{name}: {count['targets']:,} targets of {count['users']:,} users, as given")
    if sessions is not None:
        note(f"\n{sessions:,} sessions")
    if is_url(options.out):
        note(f"\nuploaded to {name_of(options.out)}\nNext: segue pull {name_of(options.out)} data/copy")
        return
    place = shlex.quote(options.out)
    shards = "" if options.shards is None else f" ({options.shards:,} shards)"
    note(f"\nwrote {options.out}{shards}\nNext: segue describe {place}, or segue train {place} --out runs/first")
