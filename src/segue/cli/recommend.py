"""`segue recommend`: lists of next items, for some users or for all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from segue.cli.asking import boosts, ids_of, items_of, limits, require_one
from segue.cli.options import POSITIONAL, OptionParser
from segue.cli.output import note, with_titles, write_frame
from segue.cli.protocol import Part, questions
from segue.engines.engine import Engine
from segue.errors import ConfigError
from segue.settings import Count, PathText, Settings, Share, Word

if TYPE_CHECKING:
    from segue.inference.index import ItemIndex
    from segue.inference.recommender import Recommender

_NOTES = """\
  segue recommend runs/first --all --k 20 --out recommendations.parquet
  segue recommend runs/first --all --out lists/ --processes 4
  segue recommend runs/first --history 50 172 181
  segue recommend runs/first --user 42 --basket 50 172
  segue recommend runs/first --user 42 --where "price < 20" --boost category=tea:0.5 --at-most category=2

With --out, a command that was stopped goes on from there when it is given again."""


@dataclass(frozen=True)
class RecommendOptions(Settings):
    """Users and items."""

    run: PathText = field(metadata=POSITIONAL)
    """Folder of a run that `segue train` wrote, or of a saved Recommender."""

    users: tuple[str, ...] | None = None
    """Raw ids of users."""

    users_file: PathText | None = None
    """File with raw ids of users, one per line."""

    all: bool = False
    """Recommend to all users of the Dataset; needs --out."""

    history: tuple[str, ...] | None = None
    """Raw ids of the items in the history of an unknown user, oldest first."""

    basket: tuple[str, ...] | None = None
    """Raw ids of the items in the session in progress of one user or one history; [] if it has just begun."""

    k: Count = 10
    """Length of the lists."""

    out: PathText | None = None
    """Write to this file (.parquet, .csv or .jsonl), or this folder of Parquet files, instead of the terminal."""

    shards: Count | None = None
    """Number of parts of --out; when not given, one for 50,000 users of a file, and for 10,000 of a folder."""

    overwrite: bool | None = None
    """Replace earlier lists in --out; when not given, true. Anything else that is there is never replaced."""

    include_seen: bool | None = None
    """Recommend items of the history too; when not given, only with --basket. Items of the basket never are."""

    allow_file: PathText | None = None
    """File with raw ids of the only items that may be recommended, one per line."""

    deny_file: PathText | None = None
    """File with raw ids of items that may not be recommended, one per line."""

    where: str | None = None
    """Condition on the item table, in SQL: "price < 20 AND category = 'tea'". Only items that fulfil it are ranked."""

    boost: tuple[str, ...] | None = None
    """Numbers to add to the scores of a category, as in category=tea:0.5."""

    at_most: tuple[str, ...] | None = None
    """Largest number of items in a list with the same category, as in category=2."""

    diversity: Share = 0.0
    """Weight of diversity in a list, from 0 (none) to 1; 0.3 is usual (maximal marginal relevance)."""

    diversity_by: Word | None = None
    """Column of categories or vectors for --diversity; the item vectors of the model when not given."""

    show: tuple[str, ...] | None = None
    """Columns of the item table to show; the titles when not given, and nothing in --json and --out."""

    index: PathText | None = None
    """Folder that `segue export --to index` wrote: take candidates from it, for large catalogues."""

    on: Part | None = None
    """Answer as in the evaluation of this part of the split: from each user's history before the held-out items."""

    as_of: str | None = None
    """Read only histories before this moment: 2024-03-01, or a number in the Dataset's time unit."""

    unknown: Literal["skip", "popular", "error"] = "skip"
    """Unknown users: leave them out with a warning, answer them with popular items, or stop."""

    device: Word | None = None
    """Device: cpu, cuda, …; cpu when not given."""

    json: bool = False
    """Write JSON instead of a table."""


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = OptionParser("recommend", _NOTES, {"user": "users"})
    parser.add_options(RecommendOptions)
    parser.add_options(Engine)
    parser.read(argv)
    options, engine = parser.get(RecommendOptions), parser.get(Engine)
    require_one(
        options.basket,
        users=options.users,
        users_file=options.users_file,
        all=options.all,
        history=options.history,
    )
    if options.all and options.out is None:
        raise ConfigError("--all needs --out FILE: lists of all users do not fit a terminal.")
    if options.history and (options.out is not None or options.as_of is not None or options.on is not None):
        raise ConfigError("--history goes with none of --out, --as-of and --on.")
    if options.basket is not None and (options.all or options.out is not None):
        raise ConfigError("--basket goes with neither --all nor --out: it is that of one user.")
    if options.out is None and (options.shards is not None or engine != Engine()):
        raise ConfigError("--engine, --processes, --address and --shards go with --out: they share the work on a file.")
    if options.index is not None and options.out is not None:
        raise ConfigError("--index goes without --out: lists of many users are as fast without an index.")
    users = ids_of(options.users, options.users_file)

    from segue.inference.asking.everyone import EVERYONE
    from segue.inference.loading import load

    recommender = load(options.run, device=options.device)
    if options.on is not None:
        recommender = recommender.without(questions(recommender, options.run, options.on))
    if options.include_seen is None and options.basket is None:
        _warn_of_repeats(recommender)
    if options.out is not None:
        with parser.errors_as_typed():
            _export(recommender, options, engine, EVERYONE if options.all else users)
        return 0
    lists = recommender.recommend(
        users,
        histories=[list(options.history)] if options.history else None,
        basket=items_of(options.basket),
        exclude_seen=None if options.include_seen is None else not options.include_seen,
        **_rules(options),
        index=_index(options.index),
    )
    if options.show is None and not options.json:
        lists = with_titles(lists, recommender.dataset)
    write_frame(lists, options.json)
    return 0


def _rules(options: RecommendOptions) -> dict[str, Any]:
    """Arguments that lists on the terminal and in files have in common."""
    return {
        "k": options.k,
        "allow": ids_of(None, options.allow_file),
        "deny": ids_of(None, options.deny_file),
        "as_of": options.as_of,
        "unknown": options.unknown,
        "where": options.where,
        "boost": boosts(options.boost),
        "at_most": limits(options.at_most),
        "diversity": options.diversity,
        "diversity_by": options.diversity_by,
        "show": options.show,
    }


def _export(recommender: Recommender, options: RecommendOptions, engine: Engine, users: object) -> None:
    assert options.out is not None
    with _bar() as progress:
        path = recommender.export(
            options.out,
            users,
            exclude_seen=not options.include_seen,
            **_rules(options),
            shards=options.shards,
            engine=engine,
            overwrite=options.overwrite,
            progress=progress,
        )
    note(f"wrote {path}")


def _index(path: str | None) -> ItemIndex | None:
    """The index in a folder; None without one."""
    if path is None:
        return None
    from segue.inference.index import ItemIndex

    return ItemIndex.open(path)


def _warn_of_repeats(recommender: Recommender) -> None:
    """Warn that seen items are left out, if the data are baskets of people who repeat themselves."""
    from segue.models.suited import suggestion_for_dataset

    suggestion = suggestion_for_dataset(recommender.dataset)
    if suggestion is not None:
        note(f"warning: items that a user had before are left out, but these are {suggestion.reason}: --include-seen")


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    """A progress bar over users, on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("users"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    screen = Console(stderr=True)
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
