"""The Recommender: a fitted model with the data that it needs to answer questions about raw ids."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from segue.arguments import checked, checked_except
from segue.data.dataset import Dataset
from segue.data.sources import HistorySource, RecentEvents, events_of, is_frame
from segue.data.splits.holdouts import Holdout
from segue.data.times import Moment, to_timestamp
from segue.data.vocabulary import is_scalar
from segue.display import pairs_as_html
from segue.engines.engine import Engine
from segue.errors import ConfigError, DataError, StorageError
from segue.inference.asking.baskets import Basket
from segue.inference.asking.everyone import UNSET, given
from segue.inference.asking.ids import item_codes, warn_cold, warn_unknown, warn_unrated
from segue.inference.asking.preferences import Boost, Preferences
from segue.inference.asking.request import (
    limit_items,
    resolve_pairs,
    resolve_repeated_users,
    resolve_users,
    without_cold,
)
from segue.inference.asking.users import GivenHistories, RequestedUsers, Unknown
from segue.inference.explaining.attention import attention_frame
from segue.inference.explaining.effects import REFERENCES, Measure
from segue.inference.explaining.neighbour_sessions import asks_for_neighbours, session_frame
from segue.inference.explaining.neighbours import check_neighbours, neighbour_frame
from segue.inference.explaining.reasons import By, check_measure, reason_frame
from segue.inference.export import Export, Progress, write_lists
from segue.inference.index import ItemIndex
from segue.inference.scorer import Scorer
from segue.inference.scoring.complete import complete_baskets
from segue.inference.scoring.indexed import build_index
from segue.inference.scoring.items import score_frame
from segue.inference.scoring.lists import best_lists, list_frame, with_columns
from segue.inference.scoring.popular import Rules, Scores, make_rules, most_popular
from segue.inference.scoring.rules import make_reranking, shown_columns
from segue.inference.scoring.similar import similar_frame, similarity_scorer
from segue.inference.storage import save_recommender
from segue.models.base import Model
from segue.models.growth import KnownScores, forget_rows, grown
from segue.models.popularity import popularity
from segue.models.ratings import RatingModel
from segue.progress import Bar
from segue.settings import Count, Share

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Items = Iterable[Any] | Mapping[Any, Iterable[Any]] | Any
"""Raw ids of items for all users, or lists of them by user id."""

_checked = checked_except(
    "users", "items", "histories", "basket", "allow", "deny", "as_of", "boost", "at_most", "diversity", "show"
)
"""Check of all arguments but ids and times, whose rules are in `asking`."""


class Recommender:
    """Answers about raw ids: lists, scores, similar items and reasons.

    `segue.fit` and `segue.load` make it. All methods take users in one of two ways:

    - `users`: one raw id or several, as a list, an array or a column of any library; `segue.EVERYONE` means all users
      of the Dataset;
    - `histories`: histories of other users, as `{id: [item, …]}` or `[[item, …], …]` (users are then numbered from 0),
      oldest item first; or a frame with `user, item[, time][, session]`.

    `basket` adds the items of the session in progress, in the order of adding; `[]` is a session that has just begun.
    It is a list of items for one user, a list for each user in their order, or lists by user id; users that it does
    not name have an empty basket. Without users and histories, it is the basket of an unknown user, or of the users
    that it names. A repeated item counts once. Unknown users with a basket are answered from the basket.

    An id must be written as in the Dataset: "2" is the user 2, but "+2" and "002" are unknown. Missing ids (None, NaN)
    are left out with a warning. A request that names nobody (no users, `None` or `{}`) is an error, so that an empty
    request does not ask for everyone.

    Users with neither history nor basket are answered by popularity, and the column `model` says so. A model of
    ratings answers them too, with its averages, so that all its scores are expected ratings. It gives an
    `UnratedItemWarning` for items without ratings in training, if they are requested or listed.

    Unknown ids among known ones are left out with an `UnknownIdWarning`; if no id is known, an `UnknownIdError` is
    raised. A history or a basket without known items counts as empty.

    Parameters
    ----------
    model
        A fitted model.
    dataset
        Vocabularies and histories; the visible interactions are the histories of the users.
    metadata
        Plain data to keep with the model, such as its split and its metrics.

    Raises
    ------
    StorageError
        The model was fitted with other users or items than those of the Dataset.

    Examples
    --------
    >>> recommender = segue.fit(segue.Markov(), segue.simulate(40, 6, names=True).dataset())
    >>> lists = recommender.recommend(["user-0007", "user-0008"], k=3)
    >>> lists.columns
    ['user', 'item', 'score', 'rank', 'model']
    >>> recommender.recommend(histories={"ann": ["beer-03", "beer-04"]}, k=1)["user"].to_list()
    ['ann']
    >>> len(recommender.explain(lists["user"], lists["item"], top=1))  # the strongest reason for each
    6
    """

    source: HistorySource
    """Histories of known users: the Dataset, or the Dataset with newer events."""

    known_items: npt.NDArray[np.bool_] | None = None
    """Mask (n_items + 1,) of the items that the model knows, after `with_data` and `add_items`; None for all."""

    @checked
    def __init__(self, model: Model, dataset: Dataset, metadata: Mapping[str, Any] | None = None) -> None:
        if (model.n_users, model.n_items) != (dataset.n_users, dataset.n_items):
            raise StorageError(
                f"the model is for {model.n_users:,} users and {model.n_items:,} items, the Dataset has "
                f"{dataset.n_users:,} and {dataset.n_items:,}: the model was fitted on another Dataset."
            )
        bind(model, dataset)
        self.model = model
        self.scorer = Scorer.of(model)
        self.dataset = self.source = dataset
        self.metadata: dict[str, Any] = dict(metadata or {})

    def __repr__(self) -> str:
        return f"Recommender({self.model.config!r}, {self.dataset!r})"

    def _repr_html_(self) -> str:
        data = self.dataset
        training = self.metadata.get("training") or {}
        figures = {name: f"{value:.4f}" for name, value in (training.get("validation") or {}).items()}
        epoch = {"best epoch": training["best_epoch"]} if "best_epoch" in training else {}
        settings = {name: value for name, value in self.model.config.to_dict().items() if name != "name"}
        facts = {
            "users": f"{data.n_users:,}",
            "items": f"{data.n_items:,}",
            "interactions": f"{data.n_interactions:,}",
            **epoch,
            **{f"validation {name}": value for name, value in figures.items()},
        }
        return pairs_as_html(f"Recommender: {self.model.config.name}", facts | settings)

    # ---- answers ------------------------------------------------------------------------------------------------

    @_checked
    def recommend(
        self,
        users: Any = UNSET,
        *,
        histories: GivenHistories | None = UNSET,
        basket: Basket | None = None,
        k: Count = 10,
        exclude_seen: bool | None = None,
        allow: Items | None = None,
        deny: Items | None = None,
        as_of: Moment | None = None,
        unknown: Unknown = "skip",
        where: str | None = None,
        boost: Boost | None = None,
        at_most: Mapping[str, int] | None = None,
        diversity: float = 0.0,
        diversity_by: str | None = None,
        show: str | Sequence[str] | None = None,
        index: ItemIndex | None = None,
    ) -> pl.DataFrame:
        """Recommend the k items that are most likely to come next, or that have the highest expected ratings.

        Parameters
        ----------
        users, histories, basket
            Users of the question, and their baskets (see the class).
        k
            Length of each list, at most the size of the catalogue. A list is shorter if `exclude_seen`, `allow`, `deny`
            and the basket leave fewer items.
        exclude_seen
            Leave out the items of the user's history. None means True without a basket and False with one, because
            users often take the same items again in a new session. The items of the basket are always left out.
        allow
            Raw ids of the only items that may be recommended; or a mapping from user to such ids, for these users only.
        deny
            Raw ids of items that may not be recommended, or a mapping from user to them; it overrides `allow`.
        as_of
            Time of the question: only the history before it counts, and the basket. A datetime (UTC if it has no
            zone), a date, either in ISO form, or a number in the Dataset's time unit. The model may have been trained
            on later interactions. A model that reads the ratings of other users reads only those before `as_of`.
        unknown
            Treatment of unknown users. "skip" leaves out users without a basket, with a warning. "popular" answers
            users without a basket by popularity (a model of ratings: by its averages). "error" refuses all of them.
        where
            Condition on the item table, in SQL: "price < 20 AND category = 'tea'". Only items that fulfil it are
            ranked. A column of several categories is compared as a set, so `genres = 'Drama'` means that Drama is among
            them. Items without a value fulfil no comparison.
        boost
            Numbers to add to the scores, by column and category: {"category": {"tea": 0.5}}. The column `score`
            includes them.
        at_most
            Largest number of items in a list with the same category, by column: {"category": 2}.
        diversity
            Weight d of diversity, from 0 (none) to 1 (nothing else). The items of a list are chosen one by one from ten
            times as many candidates (at least 100), by the largest (1 − d) · relevance − d · similarity to the items
            before (maximal marginal relevance, Carbonell and Goldstein 1998). The relevance is the score, scaled to
            0 … 1 over the candidates.
        diversity_by
            Column of the item table that the similarity is made of: the cosine of vectors, or the share of common
            categories. None means the cosine of the model's item vectors.
        show
            Columns of the item table to add to the answer, one or several; "title" is the column of the titles.
        index
            Index of `build_index`, for large catalogues: it proposes candidates, and the model scores them. Seen and
            forbidden items are left out exactly. None ranks the whole catalogue. It does not go with `boost`.

        Returns
        -------
        DataFrame
            Columns user, item (raw ids), score (the expected rating, for a model of ratings), rank (from 1) and model
            (its name, or "popularity" for users without history and basket; the score is then the item's share of all
            interactions). Users are in the order of the question, items best first.

        Raises
        ------
        ConfigError
            k is below 1 or above the size of the catalogue; `as_of` is not a time; users and histories are given at
            once; the baskets do not match the users; or a rule needs an item table, names an unknown column or
            category, or is no condition.
        UnknownIdError
            None of the ids is known.
        DataError
            `as_of` is given without times, or histories or baskets are not lists.
        """
        requested, shares = self._resolve(users, histories, basket, as_of, unknown, allow, deny)
        rules = self._rules(
            k,
            exclude_seen,
            allow,
            deny,
            in_session=basket is not None,
            offset=self._preferences.offset(where, boost),
            reranking=make_reranking(
                self._preferences, self.scorer.dense_item_vectors, at_most, diversity, diversity_by
            ),
            index=index,
        )
        columns = shown_columns(self.dataset, show)
        with Bar("users", len(requested)) as bar:
            codes, scores = best_lists(self.scorer, requested, rules, shares, bar.advance)
        warn_unrated(self.scorer, self.dataset.catalogue, codes)
        lists = list_frame(self.scorer, requested, self.dataset.catalogue, codes, scores)
        return with_columns(lists, self.dataset.catalogue, columns)

    @_checked
    def complete(
        self,
        users: Any = UNSET,
        n: Count = 5,
        *,
        histories: GivenHistories | None = UNSET,
        basket: Basket | None = None,
        allow: Items | None = None,
        deny: Items | None = None,
        as_of: Moment | None = None,
        exclude_seen: bool | None = None,
        unknown: Unknown = "skip",
        where: str | None = None,
    ) -> pl.DataFrame:
        """Complete the basket, step by step: the best item joins it, and the model ranks again.

        Parameters
        ----------
        users, histories, basket, allow, deny, as_of, unknown, where
            As in `recommend`; without a basket every session has just begun.
        n
            Number of steps. A user takes fewer if no item is left.
        exclude_seen
            Leave out the items of the user's history. None means False, as for every session in progress.

        Returns
        -------
        DataFrame
            Columns user, item, score, step (from 1) and model (the source of the step). Popularity gives the first
            step of users without history and basket; from then on they have a basket, and the model answers.

        Raises
        ------
        ConfigError, UnknownIdError, DataError
            As in `recommend`; n is below 1.
        """
        requested, shares = self._resolve(users, histories, basket, as_of, unknown, allow, deny)
        offset = self._preferences.offset(where, None)
        rules = self._rules(1, exclude_seen, allow, deny, in_session=True, offset=offset)
        return complete_baskets(self.scorer, requested, n, rules, shares, self.dataset.catalogue)

    @_checked
    def score(
        self,
        users: Any = UNSET,
        items: Any = None,
        *,
        histories: GivenHistories | None = UNSET,
        basket: Basket | None = None,
        as_of: Moment | None = None,
        unknown: Unknown = "skip",
        long: bool = False,
    ) -> pl.DataFrame:
        """Score items, seen or not; the scores of a model of ratings are expected ratings.

        Parameters
        ----------
        users, histories, basket, as_of, unknown
            As in `recommend`.
        items
            A raw id or several; None means the whole catalogue.
        long
            One row per user and item, instead of one row per user.

        Returns
        -------
        DataFrame
            Wide: the column user, then a column per item with its raw id as name. Long: columns user, item, score,
            model. The score is null for items of the item table that nobody had taken at the fit, and a
            `ColdItemWarning` says so.

        Raises
        ------
        DataError
            The frame is wide, and an item has the id "user".
        """
        requested, shares = self._resolve(users, histories, basket, as_of, unknown)
        codes = item_codes(self.dataset.catalogue, items)
        with Bar("users", len(requested)) as bar:
            return score_frame(self.scorer, requested, codes, shares, self.dataset.catalogue, long, bar.advance)

    @checked
    def similar(self, items: Any = None, k: Count = 10) -> pl.DataFrame:
        """Find similar items, by the cosine of the model's item vectors.

        Parameters
        ----------
        items
            A raw id or several; None means the whole catalogue.
        k
            Number of similar items for each item, at most the size of the catalogue.

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
        codes = item_codes(self.dataset.catalogue, items)
        if items is not None:
            warn_cold(self.scorer, self.dataset.catalogue, codes, "are similar to none")
        with Bar("items", len(codes)) as bar:
            return similar_frame(self._similarity_scorer, self.dataset.catalogue, codes, k, bar.advance)

    @_checked
    def explain(
        self,
        users: Any = UNSET,
        items: Any = None,
        *,
        histories: GivenHistories | None = UNSET,
        basket: Basket | None = None,
        as_of: Moment | None = None,
        by: By | None = None,
        measure: Measure = "score",
        top: Count | None = None,
    ) -> pl.DataFrame:
        """Explain scores: the effect of each part of the history on the score, measured by leaving the part out.

        For a model of ratings with neighbours: the earlier ratings of the item that decided the expected rating.

        Parameters
        ----------
        users, histories, basket, as_of
            As in `recommend`, but users may repeat (their basket is given once).
        items
            A raw id or several. A single user, or a single item, is paired with all of the others; several users and
            as many items are pairs, as in `explain(lists["user"], lists["item"])`.
        by
            Kinds of parts to leave out, one or several. "item": each item of the history before the basket. "basket":
            each item of the basket. "session": each earlier session as a whole, at the cost of one query per session.
            "user": the identity of the user, so that the model answers for an unknown user. "repeats": each distinct
            item of the history before the basket, with all of its occurrences. The default is "item"; with a basket, it
            is "basket", "session" and "user", if the model and the histories have them. For models that count repeats,
            the default is "repeats", or all of them with a basket. "neighbour", alone: for vsknn and vstan, the past
            sessions that speak for the item; for a model of ratings, which has nothing else, the users who rated it.
        measure
            Quantity that the effect is a difference of: the "score", or the "log-probability", the logarithm of the
            softmax over the scores of all items. Leaving a part out may shift all scores by a constant, but not
            log-probabilities.
        top
            Number of reasons for each pair, strongest first; all if it is None.

        Returns
        -------
        DataFrame
            Columns user, item, score (of the item, in the measure), kind (as in `by`), because (the item left out; null
            for sessions and the user), position (1 = the oldest; of an item in the history or basket, of a session
            among the sessions; the newest of repeats), items (number of items left out), time (if there are times; the
            first of a session, the last of repeats), attention (if the model has it: weight of the part, mean over
            blocks and heads; null if the model does not attend to it) and effect (score minus the score without the
            part); strongest first. Repeats add times (number of sessions with the item; without sessions, of
            interactions), steps_ago (such steps from the last one to the newest one) and time_ago (if there are times:
            the time since the last one, in the unit of the Dataset, up to `as_of` or the newest interaction of the
            history before the basket), which are null for other kinds. Only parts that the
            model reads have rows. A part that is the whole history, such as a history of one item, is compared with
            popular items in its place. Users without history and basket have no rows. Times are datetimes in UTC if
            the log had dates, else its numbers.

            For a model of ratings: columns user, item, score (the expected rating), kind ("neighbour"), because (the
            user who rated the item), position (1 = the oldest rating of the item), time (if there are times), rating
            (of the neighbour), attention (mean over heads; null without), agreement, decided (share of the model's
            regions in which this neighbour is the strongest) and effect. Items without neighbours have no rows.

            For `by="neighbour"` with vsknn and vstan: columns user, item, score, kind ("neighbour"), because (the user
            of the past session), position (1 = the oldest session of that user), items (number of its distinct items),
            time (if there are times; its last), similarity (to the session in progress), common (list of the items that
            both have), share (of the sum of all past sessions for this item) and effect (its term in the score). A past
            session is a whole history if the model compares histories. Its last time may lie after `as_of`.

            Items of the item table that nobody had taken at the fit have no rows, with a `ColdItemWarning`.

        Raises
        ------
        ConfigError
            The model or the histories have no parts of the kinds in `by`, or a model of ratings has no neighbours.
        DataError
            The numbers of users and items differ, and neither is one.
        """
        users, histories = given(users, histories, basket)
        check_measure(measure)
        if top is not None and top < 1:
            raise ConfigError(f"top={top} is a number of reasons: expected 1 or more.")
        self._check_histories(histories, basket)
        source, shares, timestamp = self._source_before(as_of)
        model = self.scorer.model
        if isinstance(model, RatingModel):
            check_neighbours(model, by, measure)
            pairs, codes = resolve_pairs(self.dataset, source, users, items, histories, basket, timestamp)
            warn_unrated(self.scorer, self.dataset.catalogue, codes)
            return self._dated(neighbour_frame(model, self.dataset, pairs, codes, top))
        of_sessions = asks_for_neighbours(self.scorer, by, measure)
        pairs, codes = resolve_pairs(self.dataset, source, users, items, histories, basket, timestamp)
        pairs, codes = without_cold(self.scorer, source.catalogue, pairs, codes)
        if of_sessions:
            return self._dated(session_frame(self.scorer, self.dataset, source.catalogue, pairs, codes, top))
        references = most_popular(shares, Rules(REFERENCES, cold=self.model.cold))
        reasons = reason_frame(self.scorer, source.catalogue, pairs, codes, references, by=by, measure=measure, top=top)
        return self._dated(reasons)

    @checked_except("user", "item", "history", "basket", "as_of")
    def plot_explanation(
        self,
        user: Any = UNSET,
        item: Any = None,
        *,
        history: Any = None,
        basket: Basket | None = None,
        as_of: Moment | None = None,
        by: By | None = None,
        measure: Measure = "score",
        top: Count = 10,
    ) -> Figure:
        """Draw the reasons for one score as bars, strongest on top; parts without an effect are left out.

        Parameters
        ----------
        user, item
            Raw ids.
        history
            Items of a user who is not in the Dataset, oldest first, instead of `user`.
        basket, as_of, by, measure
            As in `explain`.
        top
            Number of reasons.

        Returns
        -------
        figure
            A figure of matplotlib. A notebook shows it, and `figure.savefig("figure.svg")` writes it.

        Raises
        ------
        DataError
            The score has no reasons: nothing of the history is read.
        ConfigError, UnknownIdError
            As in `explain`.
        """
        from segue.inference.explaining.plots import plot_reasons, reason_label

        histories = UNSET if history is None else [history]
        reasons = self.explain(
            user, item, histories=histories, basket=basket, as_of=as_of, by=by, measure=measure, top=top
        )
        if reasons.is_empty():
            raise DataError("there is no reason to draw: the model reads nothing of this history for this item.")
        pairs = reasons.select("user", "item").n_unique()
        if pairs > 1:
            raise ConfigError(f"{pairs} scores are asked for: give one user and one item.")
        reasons = reasons.filter(pl.col("effect") != 0) if (reasons["effect"] != 0).any() else reasons
        of_users = reasons["kind"].item(0) == "neighbour"
        because = reasons["because"].drop_nulls()
        names = iter(because.cast(pl.String) if of_users else self.dataset.item_names(because))
        rows = reasons.iter_rows(named=True)
        labels = [reason_label(row, None if row["because"] is None else next(names)) for row in rows]
        name = self.dataset.item_names(reasons["item"].head(1)).item()
        return plot_reasons(reasons, labels, f"{name}: {measure} {reasons['score'].item(0):.3f}")

    @_checked
    def attention(
        self,
        users: Any = UNSET,
        *,
        histories: GivenHistories | None = UNSET,
        basket: Basket | None = None,
        as_of: Moment | None = None,
    ) -> pl.DataFrame:
        """Attention weights over the history and the basket, for each head of each block.

        Parameters
        ----------
        users, histories, basket, as_of
            As in `recommend`.

        Returns
        -------
        DataFrame
            Columns user, block, head (from 1), kind ("item" of the history, or "basket"), because (the item), position
            (1 = the oldest, in the history or in the basket) and weight. The weights of a block and head sum to 1. A
            model that attends only to the basket has no rows for an empty one.

        Raises
        ------
        ConfigError
            The model has no attention.
        """
        users, histories = given(users, histories, basket)
        self._check_histories(histories, basket)
        source, _, timestamp = self._source_before(as_of)
        requested, _ = resolve_repeated_users(self.dataset, source, users, histories, basket, timestamp)
        return attention_frame(self.scorer, source.catalogue, requested)

    @_checked
    def export(
        self,
        path: str | Path,
        users: Any = UNSET,
        *,
        k: Count = 10,
        exclude_seen: bool = True,
        allow: Items | None = None,
        deny: Items | None = None,
        as_of: Moment | None = None,
        unknown: Unknown = "skip",
        where: str | None = None,
        boost: Boost | None = None,
        at_most: Mapping[str, int] | None = None,
        diversity: float = 0.0,
        diversity_by: str | None = None,
        show: str | Sequence[str] | None = None,
        chunk: Count | None = None,
        shards: Count | None = None,
        engine: Engine | None = None,
        overwrite: bool | None = None,
        progress: Progress | None = None,
    ) -> Path:
        """Write the lists of many users, in parts: it needs little memory, and a killed run continues.

        Parameters
        ----------
        path
            A path that ends in .parquet, .csv or .jsonl is one file: the folder `<path>.parts` holds finished parts,
            and the file is written at the end. A path without an ending is a folder of Parquet files, one for each
            part; `lists.json`, written at the end, names them with their checksums. Earlier lists are replaced.
            Anything else that is there is refused.
        users, k, exclude_seen, allow, deny, as_of, unknown, where, boost, at_most, diversity, diversity_by, show
            As in `recommend`.
        chunk
            Number of users in a part. When None, 50,000 in a file, and 10,000 in a folder.
        shards
            Number of parts, instead of `chunk`; no more than users.
        engine
            Workers that make the parts, such as `segue.Engine(processes=4)`; this process when None. The lists are the
            same. Workers on other machines need a folder that all of them share.
        overwrite
            False refuses to replace lists too.
        progress
            Called with the number of users done and the number of all users. None shows a bar on a terminal and in a
            notebook.

        Returns
        -------
        Path
            `path`.

        Raises
        ------
        StorageError
            `path` holds something that is no lists of segue, or another process is writing there.
        ConfigError, EngineError
            `path` has another ending, or the workers cannot be reached.
        """
        target = Export(Path(path), chunk, shards, overwrite)
        rules = self._rules(
            k,
            exclude_seen,
            allow,
            deny,
            offset=self._preferences.offset(where, boost),
            reranking=make_reranking(
                self._preferences, self.scorer.dense_item_vectors, at_most, diversity, diversity_by
            ),
        )
        columns = shown_columns(self.dataset, show)
        rules.check(self.scorer.n_items)
        requested, shares = self._resolve(users, UNSET, None, as_of, unknown, allow, deny)
        with Bar("users", len(requested)) as bar:
            shown = progress or (lambda done, total: bar.set(done))
            return write_lists(
                target, self.scorer, self.source, requested, rules, shares, as_of, shown, columns, engine
            )

    @checked
    def to_onnx(
        self,
        path: str | Path,
        *,
        index: ItemIndex | None = None,
        with_data: bool = False,
        overwrite: bool | None = None,
    ) -> Path:
        """Write the model for other languages, and for Python without torch: an encoder in ONNX with its item vectors.

        SASRec, SSE-PT, GRU4Rec, HSTU, BERT4Rec and LRURec have such an encoder, with or without repeats. The folder has
        the encoder with a free number of histories of any length, the item vectors, the ids, and a README with
        programs in Python and JavaScript. It holds histories only `with_data`. The queries of the encoder are compared
        with those of the model before the folder is put in its place. It needs `pip install 'segue[onnx]'`;
        `segue.OnnxRecommender` reads it.

        Parameters
        ----------
        path
            The folder. An earlier export is replaced; anything else that is there is refused.
        index
            Index of `build_index` to write with it.
        with_data
            Write the Dataset with it, for `segue serve --engine onnx`.
        overwrite
            False refuses to replace an earlier export too.

        Returns
        -------
        Path
            `path`.

        Raises
        ------
        ConfigError
            The model has no such encoder, the index is another model's, a package is missing, or `with_data` is set and
            the Dataset has no histories.
        StorageError
            `path` holds something that is no export, or the encoder gives other queries than the model.
        """
        from segue.inference.onnx.writing import write_onnx

        if index is not None:
            index.require(self.scorer.products_fingerprint, self.scorer.n_items)
        if with_data and not self.dataset.has_histories:
            raise ConfigError("with_data: this Recommender was saved without histories, so there are none to write.")
        return write_onnx(Path(path), self.scorer, self.dataset, index, overwrite, with_data)

    @checked
    def build_index(self, *, recall: Share = 0.98, sample: Count = 2_000, threads: Count | None = None) -> ItemIndex:
        """Build an index for approximate search in a catalogue of several hundred thousand items or more.

        Queries of a sample of the users measure its recall: the share of the ten best items that it finds. Half of them
        choose the effort of a search, and the other half give `ItemIndex.recall`. A warning says if the recall is lower
        than asked for. It needs `pip install 'segue[ann]'`.

        Parameters
        ----------
        recall
            Recall to reach.
        sample
            Number of users.
        threads
            Number of threads; all cores if it is None.

        Raises
        ------
        ConfigError
            The model does not score by products with item vectors, usearch is not installed, or fewer than two users
            have a history.
        """
        known = np.flatnonzero(self.dataset.lengths)
        chosen = np.random.default_rng(0).choice(known, min(sample, len(known)), replace=False)
        index = build_index(self.scorer, self.dataset.histories(np.sort(chosen)), recall, threads or 0)
        if index.recall < recall:
            warnings.warn(
                f"the index finds {index.recall:.1%} of the ten best items, fewer than the {recall:.1%} asked for.",
                stacklevel=2,
            )
        return index

    # ---- newer events -------------------------------------------------------------------------------------------

    def with_events(self, events: Any) -> Recommender:
        """The same Recommender with newer interactions on top of the histories, without training.

        The next answer for a user uses the user's events. Users that are not in the Dataset are answered from their
        events alone. The events do not change the model's vectors, the popularity for unknown users, or the files that
        `save` writes.

        Parameters
        ----------
        events
            A frame, a file or a `Log` with `user, item[, time][, session]`, read as `segue.read` reads it. Times are
            needed if the Dataset has times. Items that are not in the catalogue are left out, with a warning.

        Returns
        -------
        Recommender
            A new Recommender that shares the model. Its own `with_events` may add more events.

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
        _ = live.source.users  # refuses ids of another type now
        return live

    @checked
    def with_data(self, data: Dataset) -> Recommender:
        """The same Recommender for a newer Dataset, without training: it answers with what is known now.

        Users and items are recognised by their raw ids. A model that counts (popularity, Markov, biases of ratings)
        counts the visible interactions of the Dataset, and then knows all of its items. Any other keeps its weights:

        - New users are unknown users with a history.
        - New items are not recommended, and their score is -1e30. In histories they stand for an item of the usual
          kind: their vector is the mean. Models of ratings score them as items without ratings. A model with
          `features` scores and recommends them by their rows in the item table.

        Train with `segue.fit(…, start=recommender)` to learn them.

        Parameters
        ----------
        data
            A Dataset, such as the result of `Dataset.append`. Events of `with_events` are not taken over.

        Returns
        -------
        Recommender
            A new Recommender. `save` writes it with its data.

        Examples
        --------
        >>> tuesday = recommender.with_data(data.append("tuesday.csv"))                  # doctest: +SKIP
        """
        model, known = grown(self.model, data, self.dataset)
        if self.known_items is not None and not known.all():  # items that it did not know before are still unknown
            codes = self.dataset.catalogue.encode(data.catalogue.ids)
            known[1:] &= torch.from_numpy(self.known_items[codes])
        live = Recommender(model, data, self.metadata)
        live.take({"known": known})
        return live

    @checked_except("items")
    def add_items(self, items: Any) -> Recommender:
        """The same Recommender with more items in its catalogue, which nobody has taken yet.

        The items have codes from now on, so requests may name them. A model that knows items only by their
        interactions does not recommend them (see `with_data`); a model that counts gives them the score 0.

        Parameters
        ----------
        items
            Raw ids, or a frame with a column `item`. Known items are left out.

        Raises
        ------
        DataError
            The frame has no such column, an id is missing or of another type, or the histories were left out.
        """
        if is_frame(items):
            if "item" not in list(getattr(items, "columns", [])):
                raise DataError("the frame of items has no column item: expected one row per item, with its id.")
            items = items["item"]
        if not self.dataset.has_histories:
            raise DataError("this Recommender was saved without histories: add the items to one that has them.")
        data = self.dataset.with_items(items)
        live = self.with_data(data)
        if isinstance(self.source, RecentEvents):
            live.source = self.source.on(data)
        return live

    @checked_except("users")
    def forget(self, users: Any) -> Recommender:
        """The same Recommender without some users: their histories, their ids and their vectors.

        The other weights were learned from all users, those included. Train again without them to remove that too.

        Parameters
        ----------
        users
            Raw ids of users.

        Raises
        ------
        UnknownIdError
            A user is unknown.
        """
        codes = self.dataset.users.require([users] if is_scalar(users) else users, "user")
        model = copy.deepcopy(self.model)
        model.vocabularies = None
        forget_rows(model, codes)
        left = Recommender(model, self.dataset.forget(users), self.metadata)
        left.take(self._extra())
        return left

    @checked
    def without(self, holdout: Holdout) -> Recommender:
        """The same Recommender with histories that end before the targets of a Holdout, as in an evaluation.

        `recommender.without(split.test).recommend(segue.EVERYONE)` gives the lists that `segue.evaluate` measures.
        Users without targets keep their histories.

        Parameters
        ----------
        holdout
            `split.test` or `split.validation` of a split of the Recommender's Dataset.

        Raises
        ------
        StorageError
            The Holdout has other users or items than the model.
        """
        bind(self.model, holdout.dataset)
        ends = holdout.dataset.ends.copy()
        ends[holdout.users] = holdout.history_ends
        earlier = copy.copy(self)
        earlier.__dict__.pop("_shares", None)
        earlier.dataset = earlier.source = holdout.dataset.until(ends)
        return earlier

    # ---- storage ------------------------------------------------------------------------------------------------

    @checked
    def save(self, path: str | Path, *, overwrite: bool | None = None, histories: bool = True) -> Path:
        """Write the Recommender to a folder that `segue.load` opens: atomic, with checksums, without pickles.

        Parameters
        ----------
        path
            The folder. A Recommender that is there already is replaced.
        overwrite
            False refuses to replace a Recommender too.
        histories
            False leaves out the histories of all users; their ids stay. Questions must then give histories or baskets,
            and an error says so. The popularity of the items is kept.

        Raises
        ------
        StorageError
            `path` holds something that is no Recommender, or other files beside one: nothing foreign is ever deleted.
        ConfigError
            `histories` is False, and the model itself stores interactions of its users (ARERec).
        """
        if not histories and self.model.stores_histories:
            raise ConfigError(
                f"histories=False: {self.model.config.name} reads the ratings of its users in every answer, so they "
                "are part of the model. Save it with them, or use a model that does not store them."
            )
        dataset = self.dataset if histories else self.dataset.without_histories()
        extra = self._extra() | ({} if dataset.has_histories else {"shares": torch.from_numpy(self._shares)})
        save_recommender(Path(path), self.model, dataset, self.metadata, overwrite, extra)
        return Path(path)

    def take(self, extra: Mapping[str, Tensor]) -> None:
        """Take over what is stored beside the model: the popularity `shares`, and the mask of the `known` items."""
        if "shares" in extra:
            self.__dict__["_shares"] = extra["shares"].numpy()
        if "known" in extra and not extra["known"].all():
            self.known_items = extra["known"].numpy()
            if not isinstance(self.model, RatingModel):
                self.scorer = Scorer(self.scorer.model, KnownScores(self.scorer.items, extra["known"]))

    # ---- helpers ------------------------------------------------------------------------------------------------

    def _resolve(
        self,
        users: Any,
        histories: GivenHistories | None,
        basket: Basket | None,
        as_of: Moment | None,
        unknown: Unknown,
        allow: Items | None = None,
        deny: Items | None = None,
    ) -> tuple[RequestedUsers, Scores]:
        """The users of a question with their own rules, and the popularity of the items at its time."""
        users, histories = given(users, histories, basket)
        if as_of is not None and histories is not None and not is_frame(histories):
            raise ConfigError(
                "as_of cuts stored histories, and frames of them; lists have no times: cut them yourself."
            )
        self._check_histories(histories, basket)
        source, shares, timestamp = self._source_before(as_of)
        requested = resolve_users(self.dataset, source, users, histories, basket, unknown, timestamp)
        return limit_items(requested, source, allow, deny), shares

    def _source_before(self, as_of: Moment | None) -> tuple[HistorySource, Scores, int | None]:
        """Source of the histories before a time, the popularity at that time, and the time in the Dataset's unit."""
        if as_of is None:
            return self.source, self._shares, None
        timestamp = to_timestamp(self.source, as_of)
        return self.source.before(timestamp), popularity(self.dataset.before(timestamp)), timestamp

    def _extra(self) -> dict[str, Tensor]:
        """Tensors to store beside the model, for `take`."""
        extra = {} if self.known_items is None else {"known": torch.from_numpy(self.known_items)}
        return extra if self.dataset.has_histories else {**extra, "shares": torch.from_numpy(self._shares)}

    def _rules(self, k: int, exclude_seen: bool | None, allow: Items | None, deny: Items | None, **more: Any) -> Rules:
        """Rules for lists, with the further ones of `make_rules`; items that the model does not know are in none."""
        rules = make_rules(self.dataset.catalogue, k, exclude_seen, allow, deny, cold=self.model.cold, **more)
        if self.known_items is None:
            return rules
        return replace(rules, allowed=self.known_items if rules.allowed is None else self.known_items & rules.allowed)

    def _check_histories(self, histories: Any, basket: Any) -> None:
        """Raise a DataError if stored histories are asked for, and the Recommender was saved without them."""
        stored = self.source is not self.dataset or self.dataset.has_histories
        if not stored and self.model.needs_history and histories is None and basket is None:
            raise DataError(
                "this Recommender was saved without histories (histories=False): give them, as in "
                "recommend(histories={user: [item, …]}), or give baskets."
            )

    def _dated(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The same frame with the column `time`, if there is one, in the form of the log."""
        return frame if "time" not in frame.columns else frame.with_columns(self.dataset.times_as_given(frame["time"]))

    @cached_property
    def _similarity_scorer(self) -> Scorer:
        return similarity_scorer(self.scorer)

    @property
    def _preferences(self) -> Preferences:
        """Compiled rules over the item table, kept from call to call while the table is the same."""
        made: Preferences | None = self.__dict__.get("_compiled")
        table, ids = self.dataset.item_table, self.dataset.catalogue.ids
        if made is None or made.table is not table or made.ids is not ids:
            made = self.__dict__["_compiled"] = Preferences(table, ids)
        return made

    @cached_property
    def _shares(self) -> Scores:
        return popularity(self.dataset)


def bind(model: Model, dataset: Dataset) -> None:
    """Remember the vocabularies of the model's Dataset, or refuse a Dataset with other ones.

    Raises
    ------
    StorageError
        The model belongs to other users or items, or to the same ones in another order.
    """
    others = model.other_vocabularies(dataset)
    if others:
        raise StorageError(
            f"the model was fitted with other {' and '.join(others)} than those of this Dataset, although their "
            "number is the same: its answers would name wrong ids. Give the Dataset of the fit, or fit it again."
        )
    model.meet(dataset)
