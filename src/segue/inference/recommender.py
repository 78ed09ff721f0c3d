"""The Recommender: a model plus all it needs to answer about raw ids."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from segue.data.dataset import Dataset
from segue.data.sources import HistorySource, RecentEvents, events_of, is_frame
from segue.errors import ConfigError, StorageError
from segue.inference.asking.as_of import Moment, moment
from segue.inference.asking.baskets import Basket, asked_people
from segue.inference.asking.users import (
    Given,
    People,
    Unknown,
    asked_items,
    require_one,
    warn_unknown,
    warn_unrated,
)
from segue.inference.explaining.effects import REFERENCES, Measure
from segue.inference.explaining.neighbours import check_neighbours, neighbour_frame
from segue.inference.explaining.reasons import By, asked_once, asked_pairs, attention_frame, check_measure, reason_frame
from segue.inference.export import Export, Progress, write_lists
from segue.inference.scorer import Scorer
from segue.inference.scoring.complete import completed
from segue.inference.scoring.lists import Rules, Scores, best_lists, list_frame, most_popular, rules_of, scores_of
from segue.inference.scoring.similar import likeness_of, similar_items
from segue.inference.storage import save_recommender
from segue.models.base import Model
from segue.models.popularity import popularity
from segue.models.ratings import RatingModel


class Recommender:
    """Answers about raw ids: lists, scores, alike items and reasons.

    Made by `segue.fit` or `segue.load`. Wherever people are asked for, they are given in one of two ways:

    - `users`: one raw id or several; None means everyone the Dataset knows;
    - `histories`: people the model has never met, as `{id: [item, …]}` or `[[item, …], …]` (then numbered from 0),
      oldest item first.

    `basket` adds what they have put into the session in progress, in the order in which they did, `[]` if it has just
    begun: a list of items for one person, a list for each in their order, or lists by id (whom they do not name has an
    empty one). Without users and histories it is the basket of somebody unknown, or of the people whom it names. An
    item counts once. Users nobody knows are answered from their basket instead of being left out.

    People with neither history nor basket are answered by popularity, and the column `model` says so; except by a model
    of ratings, which expects of somebody unknown what is usual, so that all scores are expected ratings. Items without
    a rating in training get an `UnratedItemWarning` from such a model, where they are asked for or listed.

    Unknown ids among known ones are left out, and an `UnknownIdWarning` lists them; if none is known, an UnknownIdError
    says so (but a history or a basket of which nothing is known counts as empty).

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

    source: HistorySource
    """What gives the histories of known users: the Dataset, or the Dataset with newer events."""

    def __init__(self, model: Model, dataset: Dataset, metadata: Mapping[str, Any] | None = None) -> None:
        if (model.n_users, model.n_items) != (dataset.n_users, dataset.n_items):
            raise StorageError(
                f"the model is for {model.n_users:,} users and {model.n_items:,} items, the Dataset has "
                f"{dataset.n_users:,} and {dataset.n_items:,}: it is not the one the model was fitted on."
            )
        self.model = model
        self.scorer = Scorer.of(model)
        self.dataset = self.source = dataset
        self.metadata: dict[str, Any] = dict(metadata or {})

    def __repr__(self) -> str:
        return f"Recommender({self.model.config!r}, {self.dataset!r})"

    # ---- answers ------------------------------------------------------------------------------------------------

    def recommend(
        self,
        users: Any = None,
        *,
        histories: Given | None = None,
        basket: Basket | None = None,
        k: int = 10,
        exclude_seen: bool | None = None,
        allow: Iterable[Any] | None = None,
        deny: Iterable[Any] | None = None,
        as_of: Moment | None = None,
        unknown: Unknown = "skip",
    ) -> pl.DataFrame:
        """The k items most likely to come next, or with the highest rating expected, if the model is one of ratings.

        Parameters
        ----------
        users, histories, basket
            Who is asked about, and what they have in their baskets (see the class).
        k
            Length of each list, at most the size of the catalogue. A list is shorter where `exclude_seen`, `allow`,
            `deny` and the basket leave fewer items.
        exclude_seen
            Leave out what stands in the person's history. None means True without a basket and False with one: in a
            session people take again what they took before. What is in the basket is always left out.
        allow
            Raw ids of the only items that may be recommended.
        deny
            Raw ids of items that may not; stronger than `allow`.
        as_of
            Only history before this moment counts (and the basket): a datetime (UTC if it has no zone), a date, either
            in ISO form, or a number in the Dataset's time unit. The model may have learnt from later interactions; one
            that looks back at others' ratings looks only at those before it.
        unknown
            Users who are unknown: "skip" those without a basket, with a warning; answer them by "popular" items, or
            from their baskets, or, if the model is one of ratings, by what it expects of anyone; or "error", basket or
            not.

        Returns
        -------
        DataFrame
            Columns user, item (raw ids), score (of a model of ratings, the rating expected), rank (from 1) and model
            (its name, or "popularity" for people without history and basket, whose scores are shares of all
            interactions); in the order of the people, best first.

        Raises
        ------
        ConfigError
            k below 1 or above the catalogue, an impossible `as_of`, users and histories at once, one basket for several
            people, another number of baskets than of people, or a basket of somebody who is not asked about.
        UnknownIdError
            None of the ids is known.
        DataError
            `as_of` without times; histories or baskets that are no lists.
        """
        people, shares = self._people(users, histories, basket, as_of, unknown)
        rules = rules_of(self.dataset.catalogue, k, exclude_seen, allow, deny, in_session=basket is not None)
        codes, scores = best_lists(self.scorer, people, rules, shares)
        warn_unrated(self.scorer, self.dataset.catalogue, codes)
        return list_frame(self.scorer, people, self.dataset.catalogue, codes, scores)

    def complete(
        self,
        users: Any = None,
        n: int = 5,
        *,
        histories: Given | None = None,
        basket: Basket | None = None,
        allow: Iterable[Any] | None = None,
        deny: Iterable[Any] | None = None,
        as_of: Moment | None = None,
        exclude_seen: bool | None = None,
        unknown: Unknown = "skip",
    ) -> pl.DataFrame:
        """The rest of the basket, step by step: the best item joins it, then the next one is asked for.

        Parameters
        ----------
        users, histories, basket, allow, deny, as_of, unknown
            As in `recommend`; without a basket every session has just begun.
        n
            How many steps; somebody for whom nothing is left takes fewer.
        exclude_seen
            Leave out what stands in the person's history. None means False, as for every session in progress.

        Returns
        -------
        DataFrame
            Columns user, item, score, step (from 1) and model: who answered that step. Where there is neither history
            nor basket the first step is popularity's; from then on there is a basket, and the model answers.

        Raises
        ------
        ConfigError, UnknownIdError, DataError
            As in `recommend`; n below 1.
        """
        people, shares = self._people(users, histories, basket, as_of, unknown)
        rules = rules_of(self.dataset.catalogue, 1, exclude_seen, allow, deny, in_session=True)
        return completed(self.scorer, people, n, rules, shares, self.dataset.catalogue)

    def score(
        self,
        users: Any = None,
        items: Any = None,
        *,
        histories: Given | None = None,
        basket: Basket | None = None,
        as_of: Moment | None = None,
        unknown: Unknown = "skip",
        long: bool = False,
    ) -> pl.DataFrame:
        """The scores of given items, seen or not; of a model of ratings, the ratings expected.

        Parameters
        ----------
        users, histories, basket, as_of, unknown
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
        people, shares = self._people(users, histories, basket, as_of, unknown)
        codes = asked_items(self.dataset.catalogue, items)
        return scores_of(self.scorer, people, codes, shares, self.dataset.catalogue, long)

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
        return similar_items(self._likeness, self.dataset.catalogue, asked_items(self.dataset.catalogue, items), k)

    def explain(
        self,
        users: Any = None,
        items: Any = None,
        *,
        histories: Given | None = None,
        basket: Basket | None = None,
        as_of: Moment | None = None,
        by: By | None = None,
        measure: Measure = "score",
        top: int | None = None,
    ) -> pl.DataFrame:
        """Why items were suggested: how much each part of what was read added to the score, by leaving it out.

        Of a model of ratings that looks at an item's earlier ratings: which of them decided what is expected.

        Parameters
        ----------
        users, histories, basket, as_of
            As in `recommend`, but people may repeat (their basket is given once).
        items
            A raw id or several. One person or one item goes with all of the others; else the two are pairs, as in
            `explain(lists["user"], lists["item"])`.
        by
            What is left out, one or several of: "item", each item of the history before the basket; "basket", each
            item of the basket; "session", each earlier session as a whole (a question per session, however long the
            history); "user", the knowledge of who it is (the same question asked for someone unknown). When not given:
            items, or, where there is a basket, everything but items that the model and the histories have. Of a model
            of ratings "neighbour", someone who rated the item before, and nothing else.
        measure
            What the effect is a difference of: the "score", or the "log-probability", the logarithm of the softmax
            of the scores of all items. Scores of one history may all be shifted by a constant, log-probabilities not.
        top
            Only so many of the strongest reasons for each pair.

        Returns
        -------
        DataFrame
            Columns user, item, score (the item's, in the measure), kind (as of `by`), because (the item left out; null
            for sessions and the user), position (1 = the oldest: of an item in the history or in the basket, of a
            session among the sessions), items (how many were left out), time (if there are times; of a session its
            first), attention (if the model has it: the weight it gave, mean over blocks and heads; null for what it
            did not look at) and effect (score minus the score without it); strongest first. Only what the model reads
            has rows: items beyond its longest history had no part in the score. What is all there is (a history of
            one item) is compared with popular items in its place. People without history and basket have no rows.

            Of a model of ratings: columns user, item, score (the rating expected), kind ("neighbour"), because (who
            rated the item), position (1 = its oldest rating), time (if there are times), rating (what the neighbour
            gave), attention (mean over heads; null without), decided (the share of the model's regions in which this
            neighbour is the strongest) and effect. Items without neighbours have no rows.

        Raises
        ------
        ConfigError
            Nothing of what `by` names is there to be left out, or a model of ratings looks at no neighbours.
        DataError
            The numbers of people and items differ, and neither is one.
        """
        require_one(users, histories)
        check_measure(measure)
        if top is not None and top < 1:
            raise ConfigError(f"top={top} is a number of reasons: expected 1 or more.")
        source, shares, when = self._until(as_of)
        model = self.scorer.model
        if isinstance(model, RatingModel):
            check_neighbours(model, by, measure)
            pairs, codes = asked_pairs(self.dataset, source, users, items, histories, basket, when)
            warn_unrated(self.scorer, self.dataset.catalogue, codes)
            return neighbour_frame(model, self.dataset, pairs, codes, top)
        pairs, codes = asked_pairs(self.dataset, source, users, items, histories, basket, when)
        references = most_popular(shares, Rules(REFERENCES))
        return reason_frame(self.scorer, source.catalogue, pairs, codes, references, by=by, measure=measure, top=top)

    def attention(
        self,
        users: Any = None,
        *,
        histories: Given | None = None,
        basket: Basket | None = None,
        as_of: Moment | None = None,
    ) -> pl.DataFrame:
        """What the model looked at, in each head of each block, before it scored anything.

        Parameters
        ----------
        users, histories, basket, as_of
            As in `recommend`.

        Returns
        -------
        DataFrame
            Columns user, block, head (from 1), kind ("item" of the history, or "basket"), because (the item), position
            (1 = the oldest, in the history or in the basket) and weight. Over a block and head the weights sum to 1; a
            model that looks at the basket alone has no rows for an empty one.

        Raises
        ------
        ConfigError
            The model has no attention.
        """
        require_one(users, histories)
        source, _, when = self._until(as_of)
        people, _ = asked_once(self.dataset, source, users, histories, basket, when)
        return attention_frame(self.scorer, source.catalogue, people)

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
        rules = rules_of(self.dataset.catalogue, k, exclude_seen, allow, deny)
        rules.check(self.scorer.n_items)
        people, shares = self._people(users, None, None, as_of, unknown)
        return write_lists(target, self.scorer, self.source, people, rules, shares, as_of, progress)

    # ---- newer events -------------------------------------------------------------------------------------------

    def with_events(self, events: Any) -> Recommender:
        """The same Recommender with newer interactions on top of the histories; nothing is trained again.

        The next answer for a user knows the user's events; users whom the Dataset does not know are answered from
        their events alone. The model's vectors, the popularity that answers unknown users, and what `save` writes are
        those of the Dataset.

        Parameters
        ----------
        events
            A frame, a file or a `Log` with `user, item[, time][, session]`, read as `segue.read` reads it. Times are
            needed if the Dataset has them. Items that the catalogue does not hold are left out, with a warning.

        Returns
        -------
        Recommender
            It shares the model; this one stays as it is. May be repeated.

        Raises
        ------
        DataError
            The events cannot be read, lack times, or have user ids of another type.

        Examples
        --------
        >>> live = recommender.with_events(pl.DataFrame({"user": [42], "item": [7], "time": [1]}))  # doctest: +SKIP
        """
        arrived = events_of(self.dataset, events)
        warn_unknown("items", arrived.unknown, "left out of the events")
        live = copy.copy(self)
        live.source = RecentEvents(self.source, arrived)
        _ = live.source.users  # an id that cannot join the known ones is refused now
        return live

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
        self, users: Any, histories: Given | None, basket: Basket | None, as_of: Moment | None, unknown: Unknown
    ) -> tuple[People, Scores]:
        """Who is asked about, and the popularity that answers for those of whom nothing is known."""
        if as_of is not None and histories is not None and not is_frame(histories):
            raise ConfigError(
                "as_of cuts stored histories, and frames of them; lists have no times: cut them yourself."
            )
        source, shares, when = self._until(as_of)
        return asked_people(self.dataset, source, users, histories, basket, unknown, when), shares

    def _until(self, as_of: Moment | None) -> tuple[HistorySource, Scores, int | None]:
        """Histories before a moment, the popularity then, and the moment in the Dataset's unit."""
        if as_of is None:
            return self.source, self._shares, None
        when = moment(self.source, as_of)
        return self.source.before(when), popularity(self.dataset.before(when)), when

    @cached_property
    def _likeness(self) -> Scorer:
        return likeness_of(self.scorer)

    @cached_property
    def _shares(self) -> Scores:
        return popularity(self.dataset)
