"""`segue explain`: the effect of each part of a history on a score, as a table or a heat map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from segue.cli.asking import items_of, require_one
from segue.cli.options import POSITIONAL, OptionParser
from segue.cli.output import note, with_titles, write_frame, write_json
from segue.cli.protocol import questions
from segue.errors import ConfigError
from segue.settings import Count, PathText, Settings, Word

if TYPE_CHECKING:
    import polars as pl

    from segue.data.dataset import Dataset
    from segue.evaluation.explanations.labels import Labels
    from segue.inference.recommender import Recommender

_NOTES = """\
  segue explain runs/first --user 42 --basket 50 172 --picture reasons.png
  segue explain runs/first --map drawn.png --truth data/shop.truth.npz"""

_OF_SCORES = "\neffect: the score minus the score without that item, session or user."
_OF_SESSIONS = (
    "\nbecause: the user of a past session with the item. common: items of both sessions. share: of the effects of all "
    "past\nsessions with the item. effect: the term in the score."
)
_OF_RATINGS = "\neffect: the expected rating minus the one without that neighbour."


@dataclass(frozen=True)
class ExplainOptions(Settings):
    """Scores to explain."""

    run: PathText = field(metadata=POSITIONAL)
    """Folder of a run that `segue train` wrote, or of a saved Recommender."""

    item: tuple[str, ...] | None = None
    """Raw ids of the items to explain, usually one; the --k best when not given with --picture."""

    user: str | None = None
    """Raw id of the user."""

    history: tuple[str, ...] | None = None
    """Raw ids of the items in the history of an unknown user, oldest first."""

    basket: tuple[str, ...] | None = None
    """Raw ids of the items in the session in progress, oldest first; [] if it has just begun."""

    as_of: str | None = None
    """Read only histories before this moment: 2024-03-01, or a number in the Dataset's time unit."""

    by: tuple[Literal["item", "basket", "session", "user", "repeats", "neighbour"], ...] | None = None
    """Parts to leave out in turn: items of the history, items of the basket, earlier sessions, the user, repeats (an
    item of the history with all of its occurrences); or neighbours, alone: users who rated the item, or past sessions
    (vsknn, vstan). When not given, items, or repeats if the model counts them; with a basket, all but items."""

    measure: Literal["score", "log-probability"] | None = None
    """Measure of an effect: the score, or the log-probability of a softmax over all items. When not given, the score;
    with --picture, the log-probability."""

    top: Count | None = None
    """Number of strongest reasons for each item; all when not given."""

    attention: bool = False
    """Show attention weights in place of effects, by block and head."""

    picture: PathText | None = None
    """PNG file for a heat map of effects, from basket to suggestions."""

    k: Count = 8
    """Number of suggestions that --picture explains."""

    map: PathText | None = None
    """PNG file for a heat map of mean effects in the test sessions, by category and group."""

    users: Count | None = None
    """Number of users for --map, drawn once; all when not given."""

    categories: PathText | None = None
    """CSV file with a header for --map: items and their categories."""

    groups: PathText | None = None
    """CSV file with a header for --map: users and their groups; one group when not given."""

    truth: PathText | None = None
    """File .truth.npz that `segue simulate` wrote, with categories and groups for --map."""

    show: tuple[str, ...] | None = None
    """Columns of the item table to show; the titles when not given, and nothing in --json."""

    device: Word | None = None
    """Device: cpu, cuda, …; cpu when not given."""

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
        raise ConfigError("--picture and --map draw effects of histories, and a model of ratings reads no histories.")
    if options.map is not None:
        return _map(options, recommender)
    if options.picture is not None and "neighbour" in (options.by or ()):
        raise ConfigError("--picture draws effects of parts of the history, and --by neighbour shows past sessions.")
    if options.picture is not None:
        return _picture(options, recommender)
    if options.attention:
        return _write(options, recommender.attention(**_asking(options)), recommender.dataset)
    reasons = _reasons(options, recommender, options.item, options.measure or "score")
    caption = _OF_RATINGS if of_ratings else _OF_SESSIONS if "common" in reasons.columns else _OF_SCORES
    return _write(options, reasons, recommender.dataset, caption)


def _check(options: ExplainOptions) -> None:
    """Raise a ConfigError for options that do not go together."""
    if options.map is not None:
        if options.user or options.history or options.basket is not None or options.item:
            raise ConfigError(
                "--map averages over the sessions of the test part: leave out --user, --history, --basket and --item."
            )
        if (options.truth is None) == (options.categories is None):
            raise ConfigError("--map needs the categories of the items: give either --categories or --truth.")
        if options.truth is not None and options.groups is not None:
            raise ConfigError("--truth knows the groups: leave out --groups.")
        return
    for name in ("users", "categories", "groups", "truth"):
        if getattr(options, name) is not None:
            raise ConfigError(f"--{name} goes with --map.")
    require_one(options.basket, user=options.user, history=options.history)
    if not options.item and options.picture is None and not options.attention:
        raise ConfigError("give --item, the item whose score is explained, or --attention or --picture.")


def _asking(options: ExplainOptions) -> dict[str, Any]:
    return {
        "users": options.user,
        "histories": [list(options.history)] if options.history else None,
        "basket": items_of(options.basket),
        "as_of": options.as_of,
    }


def _reasons(
    options: ExplainOptions, recommender: Recommender, items: Any, measure: Literal["score", "log-probability"]
) -> pl.DataFrame:
    return recommender.explain(items=list(items), by=options.by, measure=measure, top=options.top, **_asking(options))


def _write(options: ExplainOptions, frame: pl.DataFrame, dataset: Dataset, caption: str | None = None) -> int:
    if options.json:
        write_json((with_titles(frame, dataset, options.show) if options.show is not None else frame).to_dicts())
        return 0
    frame = _with_common(_with_repeats(frame, dataset), dataset)
    write_frame(with_titles(_dated(frame, dataset.time_unit), dataset, options.show), as_json=False)
    if caption:
        note(caption)
    return 0


def _picture(options: ExplainOptions, recommender: Recommender) -> int:
    """Draw the reasons for the suggestions to one user."""
    from segue.evaluation.explanations.heatmaps import draw_reasons
    from segue.models.base import Model

    assert options.picture is not None
    asking = _asking(options)
    items = options.item or recommender.recommend(k=min(options.k, recommender.dataset.n_items), **asking)["item"]
    reasons = _reasons(options, recommender, items, options.measure or "log-probability")
    has_attention = type(recommender.model).attention is not Model.attention
    attention = recommender.attention(**asking) if has_attention else None
    dataset = recommender.dataset
    draw_reasons(options.picture, _named(reasons, dataset), None if attention is None else _named(attention, dataset))
    note(f"wrote {options.picture}")
    return 0


def _named(frame: pl.DataFrame, dataset: Dataset) -> pl.DataFrame:
    """The same frame with titles in place of the ids of items, if there are titles."""
    if dataset.titles is None:
        return frame
    are_users = "kind" in frame.columns and bool((frame["kind"] == "neighbour").any())
    columns = [name for name in ("item", "because") if name in frame.columns and not (are_users and name == "because")]
    return frame.with_columns(dataset.item_names(frame[name]).alias(name) for name in columns)


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


def _with_repeats(reasons: pl.DataFrame, dataset: Dataset) -> pl.DataFrame:
    """The same reasons with a text, such as "14 times, last 9 days ago", in place of the numbers of repeats."""
    if "times" not in reasons.columns:
        return reasons
    from segue.inference.explaining.repeats import with_texts

    return with_texts(reasons, dataset).drop("times", "steps_ago", "time_ago", strict=False)


def _with_common(reasons: pl.DataFrame, dataset: Dataset) -> pl.DataFrame:
    """The same reasons with a text, such as "tea, jam", in place of the list of common items: titles, if there are."""
    import polars as pl

    if "common" not in reasons.columns:
        return reasons
    texts = [", ".join(map(str, dataset.item_names(one))) for one in reasons["common"]]
    return reasons.with_columns(pl.Series("common", texts, dtype=pl.String))


def _dated(reasons: pl.DataFrame, time_unit: str | None) -> pl.DataFrame:
    """The same reasons with short texts for dates and times."""
    import polars as pl

    scale = {"s": 1_000_000, "ms": 1_000, "us": 1}.get(time_unit or "")
    if scale is not None and reasons.schema.get("time") == pl.Int64:
        reasons = reasons.with_columns((pl.col("time") * scale).cast(pl.Datetime("us")))
    return reasons.with_columns(pl.col(pl.Datetime).dt.to_string("%Y-%m-%d %H:%M"))
