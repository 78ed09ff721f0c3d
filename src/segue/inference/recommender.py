"""The Recommender: a model plus all it needs to answer about raw ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from segue.data.dataset import Dataset
from segue.errors import ConfigError, StorageError
from segue.inference.explain import REFERENCES, asked_pairs, reason_frame
from segue.inference.export import Export, Progress, identify
from segue.inference.lists import (
    Rules,
    Scores,
    best_lists,
    list_frame,
    long_scores,
    most_popular,
    score_matrix,
    wide_scores,
)
from segue.inference.people import (
    Given,
    Moment,
    People,
    Unknown,
    allowed_items,
    asked_items,
    given_people,
    listed_people,
    moment,
    require_one,
)
from segue.inference.similar import similar_items
from segue.inference.storage import load_recommender, save_recommender
from segue.models.base import Model
from segue.models.popularity import popularity


class Recommender:
    """Answers about raw ids: lists, scores, alike items and reasons.

    Made by `segue.fit` or `segue.load`. Wherever people are asked for, they are given in one of two ways:

    - `users`: one raw id or several; None means everyone the Dataset knows;
    - `histories`: people the model has never met, as `{id: [item, …]}` or `[[item, …], …]` (then numbered from 0),
      oldest item first.

    People without any history are answered by popularity, and the column `model` says so. Unknown ids among known ones
    are left out, and an `UnknownIdWarning` lists them; if none is known, an UnknownIdError says so.

    Parameters
    ----------
    model
        A fitted model.
    dataset
        Vocabularies and histories; what is visible in it counts as each user's history.
    metadata
        Anything worth keeping: how the model was fitted, its figures. Plain data.

    Raises
    ------
    StorageError
        The model was made for other numbers of users or items than the Dataset has.
    """

    def __init__(self, model: Model, dataset: Dataset, metadata: Mapping[str, Any] | None = None) -> None:
        if (model.n_users, model.n_items) != (dataset.n_users, dataset.n_items):
            raise StorageError(
                f"the model is for {model.n_users:,} users and {model.n_items:,} items, the Dataset has "
                f"{dataset.n_users:,} and {dataset.n_items:,}: it is not the one the model was fitted on."
            )
        self.model = model
        self.dataset = dataset
        self.metadata: dict[str, Any] = dict(metadata or {})

    def __repr__(self) -> str:
        return f"Recommender({self.model.config!r}, {self.dataset!r})"

    # ---- answers ------------------------------------------------------------------------------------------------

    def recommend(
        self,
        users: Any = None,
        *,
        histories: Given | None = None,
        k: int = 10,
        exclude_seen: bool = True,
        allow: Iterable[Any] | None = None,
        deny: Iterable[Any] | None = None,
        as_of: Moment | None = None,
        unknown: Unknown = "skip",
    ) -> pl.DataFrame:
        """The k items most likely to come next.

        Parameters
        ----------
        users, histories
            Who is asked about (see the class).
        k
            Length of each list, at most the size of the catalogue. A list is shorter where `exclude_seen`, `allow` and
            `deny` leave fewer items.
        exclude_seen
            Leave out what stands in the person's history.
        allow
            Raw ids of the only items that may be recommended.
        deny
            Raw ids of items that may not; stronger than `allow`.
        as_of
            Only history before this moment counts: a datetime (UTC if it has no zone), a date, either in ISO form, or
            a number in the Dataset's time unit. The model itself may have learnt from later interactions.
        unknown
            Users who are unknown: "skip" them with a warning, answer them by "popular" items, or "error".

        Returns
        -------
        DataFrame
            Columns user, item (raw ids), score, rank (from 1) and model (its name, or "popularity" for people without
            a history, whose scores are shares of all interactions); in the order of the people asked for, best first.

        Raises
        ------
        ConfigError
            k below 1 or above the catalogue, an impossible `as_of`, users and histories at once.
        UnknownIdError
            None of the ids is known.
        DataError
            `as_of` without times.
        """
        people, shares = self._people(users, histories, as_of, unknown)
        rules = Rules(k, exclude_seen, allowed_items(self.dataset.catalogue, allow, deny))
        codes, scores = best_lists(self.model, people, rules, shares)
        return list_frame(self.model, people, self.dataset.catalogue, codes, scores)

    def score(
        self,
        users: Any = None,
        items: Any = None,
        *,
        histories: Given | None = None,
        as_of: Moment | None = None,
        unknown: Unknown = "skip",
        long: bool = False,
    ) -> pl.DataFrame:
        """The scores of given items, seen or not.

        Parameters
        ----------
        users, histories, as_of, unknown
            As in `recommend`.
        items
            A raw id or several; None means the whole catalogue.
        long
            One row per person and item, instead of one row per person.

        Returns
        -------
        DataFrame
            Wide: the column user, then a column per item, named by its raw id. Long: columns user, item, score, model.

        Raises
        ------
        DataError
            Wide, and an item has the id "user".
        """
        people, shares = self._people(users, histories, as_of, unknown)
        codes = asked_items(self.dataset.catalogue, items)
        matrix = score_matrix(self.model, people, codes, shares)
        names = self.dataset.catalogue.decode(codes)
        return long_scores(self.model, people, names, matrix) if long else wide_scores(people, names, matrix)

    def similar(self, items: Any = None, k: int = 10) -> pl.DataFrame:
        """The items most like given ones, by the cosine of the model's item vectors.

        Parameters
        ----------
        items
            A raw id or several; None means the whole catalogue.
        k
            How many for each, at most the size of the catalogue.

        Returns
        -------
        DataFrame
            Columns item, similar (raw ids), score (cosine) and rank.

        Raises
        ------
        ConfigError
            The model has no item vectors (popularity), or k is out of range.
        UnknownIdError
            None of the items is known.
        """
        return similar_items(self.model, self.dataset.catalogue, asked_items(self.dataset.catalogue, items), k)

    def explain(
        self,
        users: Any = None,
        items: Any = None,
        *,
        histories: Given | None = None,
        as_of: Moment | None = None,
        top: int | None = None,
    ) -> pl.DataFrame:
        """Why items were suggested: how much each item of the history added to the score, by leaving it out.

        Parameters
        ----------
        users, histories, as_of
            As in `recommend`, but people may repeat.
        items
            A raw id or several. One person or one item goes with all of the others; else the two are pairs, as in
            `explain(lists["user"], lists["item"])`.
        top
            Only so many of the strongest reasons for each pair.

        Returns
        -------
        DataFrame
            Columns user, item, score (the item's), because (an item of the history), position (1 = the oldest), time
            (if there are times) and effect (score minus the score without that item); strongest first. Only what the
            model reads has rows: items beyond its longest history had no part in the score. The item of a history of
            one is compared with popular items in its place. People without a history have no rows.

        Raises
        ------
        DataError
            The numbers of people and items differ, and neither is one.
        """
        require_one(users, histories)
        if top is not None and top < 1:
            raise ConfigError(f"top={top} is a number of reasons: expected 1 or more.")
        dataset, shares = self._until(as_of)
        pairs, codes = asked_pairs(dataset, users, items, histories)
        references = most_popular(shares, Rules(REFERENCES))
        return reason_frame(self.model, dataset, pairs, codes, references, top)

    def export(
        self,
        path: str | Path,
        users: Any = None,
        *,
        k: int = 10,
        exclude_seen: bool = True,
        allow: Iterable[Any] | None = None,
        deny: Iterable[Any] | None = None,
        as_of: Moment | None = None,
        unknown: Unknown = "skip",
        chunk: int = 50_000,
        progress: Progress | None = None,
    ) -> Path:
        """Write `recommend` for many people to one file, in parts: little memory, and a killed run goes on.

        Parameters
        ----------
        path
            Ends in .parquet, .csv or .jsonl. Finished parts wait in the folder `<path>.parts`; the file itself appears
            at the end, whole, in place of one that was there.
        users, k, exclude_seen, allow, deny, as_of, unknown
            As in `recommend`.
        chunk
            How many people to a part.
        progress
            Called with the number of people done and of all.

        Returns
        -------
        Path
            `path`.
        """
        target = Export(Path(path), chunk)
        rules = Rules(k, exclude_seen, allowed_items(self.dataset.catalogue, allow, deny))
        rules.check(self.model.n_items)
        people, shares = self._people(users, None, as_of, unknown)
        until = None if as_of is None else moment(self.dataset, as_of)

        def lists(part: slice) -> pl.DataFrame:
            some = people.select(part)
            codes, scores = best_lists(self.model, some, rules, shares)
            return list_frame(self.model, some, self.dataset.catalogue, codes, scores)

        return target.write(len(people), identify(self.model, self.dataset, people, rules, until), lists, progress)

    # ---- storage ------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Write the Recommender as a folder that `segue.load` opens; atomic, checksummed, without a pickle.

        Raises
        ------
        StorageError
            `path` exists and was not written by segue.
        """
        save_recommender(Path(path), self.model, self.dataset, self.metadata)
        return Path(path)

    # ---- within -------------------------------------------------------------------------------------------------

    def _people(
        self, users: Any, histories: Given | None, as_of: Moment | None, unknown: Unknown
    ) -> tuple[People, Scores]:
        """Who is asked about, and the popularity that answers for those without a history."""
        require_one(users, histories)
        if histories is not None:
            if as_of is not None:
                raise ConfigError("as_of cuts stored histories; given ones have no times: cut them yourself.")
            return given_people(self.dataset, histories), self._shares
        dataset, shares = self._until(as_of)
        return listed_people(dataset, users, unknown), shares

    def _until(self, as_of: Moment | None) -> tuple[Dataset, Scores]:
        """What had happened before a moment, and the popularity then."""
        if as_of is None:
            return self.dataset, self._shares
        dataset = self.dataset.before(moment(self.dataset, as_of))
        return dataset, popularity(dataset)

    @cached_property
    def _shares(self) -> Scores:
        return popularity(self.dataset)


def load(path: str | Path, *, verify: bool = True, device: str | None = None) -> Recommender:
    """Open a Recommender that `Recommender.save` or `segue.fit` wrote.

    Parameters
    ----------
    path
        Its folder, or the folder of a run that holds it as `recommender/`.
    verify
        Compare checksums first (about a second per gigabyte).
    device
        Where the model answers: "cpu" (when not given), "cuda", …

    Raises
    ------
    StorageError
        No such folder, a newer format, a file that is missing, truncated or altered, a pickle in place of the weights,
        or weights that do not fit.
    ConfigError
        There is no such device here.
    """
    model, dataset, metadata = load_recommender(Path(path), verify=verify)
    try:
        model = model if device is None else model.to(device)
    except (RuntimeError, AssertionError) as error:  # what torch raises depends on the device and on how it was built
        raise ConfigError(f"device={device!r} cannot be used here: {error}") from None
    return Recommender(model, dataset, metadata)
