"""`segue explain`: how much each part of what was read added to a score; tables and heat maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from segue.cli.options import POSITIONAL, OptionParser
from segue.cli.output import note, write_frame, write_json
from segue.cli.people import items_of, require_person
from segue.cli.protocol import questions
from segue.errors import ConfigError

if TYPE_CHECKING:
    import polars as pl

    from segue.data.dataset import Dataset
    from segue.evaluation.explanations.labels import Labels
    from segue.inference.recommender import Recommender

_NOTES = """\
  segue explain runs/first --user 42 --basket 50 172 --picture reasons.png
  segue explain runs/first --map drawn.png --truth data/shop.truth.npz"""

_OF_SCORES = "\neffect: the score less the score without that item, session or user."
_OF_RATINGS = "\neffect: the rating expected, less the one expected without that neighbour."


@dataclass(frozen=True)
class ExplainOptions:
    """Which score."""

    run: str = field(metadata=POSITIONAL)
    """Folder of a run that `segue train` wrote, or of a saved Recommender."""

    item: tuple[str, ...] | None = None
    """Raw ids of the items whose scores are explained, usually one; with --picture the --k best when not given."""

    user: str | None = None
    """Raw id of the user."""

    history: tuple[str, ...] | None = None
    """Raw ids of the items that someone unknown took, oldest first."""

    basket: tuple[str, ...] | None = None
    """Raw ids of what is in the basket of the session in progress, in the order it was added; [] for nothing yet."""

    as_of: str | None = None
    """Only history before this moment counts: 2024-03-01, or a number in the Dataset's time unit."""

    by: tuple[Literal["item", "basket", "session", "user", "neighbour"], ...] | None = None
    """What is left out: each item of the history, each of the basket, each earlier session, the user; when not given
    items, or with a basket all the others that there are. Of a model of ratings: each neighbour."""

    measure: Literal["score", "log-probability"] | None = None
    """What an effect is a difference of: the model's score, or the logarithm of its softmax over all items; score when
    not given, log-probability in a picture."""

    top: int | None = None
    """Only so many of the strongest reasons for each item; all when not given."""

    attention: bool = False
    """The weights of each block and head instead; with --map, attention in the place of effects."""

    picture: str | None = None
    """Draw a heat map to this PNG file: what in the basket drew what."""

    k: int = 8
    """How many suggestions --picture explains."""

    map: str | None = None
    """Draw to this PNG file what in the basket drew what in the sessions of the test part, by category and group."""

    users: int | None = None
    """Sessions of so many users for --map, drawn once; all when not given."""

    categories: str | None = None
    """CSV file for --map with a header: items and their categories."""

    groups: str | None = None
    """CSV file for --map with a header: users and their groups; one group of all when not given."""

    truth: str | None = None
    """File .truth.npz that `segue simulate` wrote: gives --map the categories and groups."""

    device: str | None = None
    """cpu, cuda, …; cpu when not given."""

    json: bool = False
    """Write JSON instead of a table."""


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = OptionParser("explain", _NOTES)
    parser.add_options(ExplainOptions)
    parser.read(argv)
    options = parser.get(ExplainOptions)
    _check(options)

    from segue.inference.loading import load
    from segue.models.ratings import RatingModel

    recommender = load(options.run, device=options.device)
    of_ratings = isinstance(recommender.model, RatingModel)
    if of_ratings and (options.map or options.picture):
        raise ConfigError("--picture and --map draw what was read of histories, and a model of ratings reads none.")
    if options.map is not None:
        return _map(options, recommender)
    if options.picture is not None:
        return _picture(options, recommender)
    unit = recommender.dataset.time_unit
    if options.attention:
        return _write(options, recommender.attention(**_person(options)), unit)
    reasons = _reasons(options, recommender, options.item, options.measure or "score")
    said = _OF_RATINGS if of_ratings else _OF_SCORES
    return _write(options, reasons, unit, said)


def _check(options: ExplainOptions) -> None:
    """Refuse options that do not go together."""
    if options.map is not None:
        if options.user or options.history or options.basket is not None or options.item:
            raise ConfigError("--map averages over the sessions of the test part: leave out who and what.")
        if (options.truth is None) == (options.categories is None):
            raise ConfigError("--map needs the categories of the items: give either --categories or --truth.")
        if options.truth is not None and options.groups is not None:
            raise ConfigError("--truth knows the groups: leave out --groups.")
        return
    for name in ("users", "categories", "groups", "truth"):
        if getattr(options, name) is not None:
            raise ConfigError(f"--{name} goes with --map.")
    require_person(options.basket, user=options.user, history=options.history)
    if not options.item and options.picture is None and not options.attention:
        raise ConfigError("give --item, the item whose score is explained, or --attention or --picture.")


def _person(options: ExplainOptions) -> dict[str, Any]:
    return {
        "users": options.user,
        "histories": [list(options.history)] if options.history else None,
        "basket": items_of(options.basket),
        "as_of": options.as_of,
    }


def _reasons(
    options: ExplainOptions, recommender: Recommender, items: Any, measure: Literal["score", "log-probability"]
) -> pl.DataFrame:
    return recommender.explain(items=list(items), by=options.by, measure=measure, top=options.top, **_person(options))


def _write(options: ExplainOptions, frame: pl.DataFrame, time_unit: str | None, said: str | None = None) -> int:
    if options.json:
        write_json(frame.to_dicts())
        return 0
    write_frame(_dated(frame, time_unit), as_json=False)
    if said:
        note(said)
    return 0


def _picture(options: ExplainOptions, recommender: Recommender) -> int:
    """Draw one question."""
    from segue.evaluation.explanations.heatmaps import draw_reasons
    from segue.models.base import Model

    assert options.picture is not None
    person = _person(options)
    items = options.item or recommender.recommend(k=min(options.k, recommender.dataset.n_items), **person)["item"]
    reasons = _reasons(options, recommender, items, options.measure or "log-probability")
    sees = type(recommender.model).attention is not Model.attention
    draw_reasons(options.picture, reasons, recommender.attention(**person) if sees else None)
    note(f"wrote {options.picture}")
    return 0


def _map(options: ExplainOptions, recommender: Recommender) -> int:
    """Draw averages over the test part."""
    from segue.evaluation.explanations.category_maps import category_maps
    from segue.evaluation.explanations.heatmaps import draw_maps

    assert options.map is not None
    holdout = questions(recommender, options.run, "test")
    if options.users is not None:
        holdout = holdout.sample(options.users)
    maps = category_maps(recommender.model, holdout, *_labels(options, recommender.dataset))
    draw_maps(options.map, maps, "attention" if options.attention else "effects")
    note(f"wrote {options.map}: {maps.steps:,} steps of {len(holdout):,} sessions")
    return 0


def _labels(options: ExplainOptions, dataset: Dataset) -> tuple[Labels, Labels | None]:
    from segue.data.simulation.planted import Planted
    from segue.evaluation.explanations.labels import Labels, planted_labels

    if options.truth is not None:
        return planted_labels(Planted.load(options.truth), dataset)
    assert options.categories is not None
    groups = None if options.groups is None else Labels.of(dataset.users, options.groups, "users")
    return Labels.of(dataset.catalogue, options.categories, "items"), groups


def _dated(reasons: pl.DataFrame, time_unit: str | None) -> pl.DataFrame:
    """The same with times as a person reads them."""
    import polars as pl

    scale = {"s": 1_000_000, "ms": 1_000, "us": 1}.get(time_unit or "")
    if scale is None or "time" not in reasons.columns:
        return reasons
    return reasons.with_columns((pl.col("time") * scale).cast(pl.Datetime("us")).dt.to_string("%Y-%m-%d %H:%M"))
