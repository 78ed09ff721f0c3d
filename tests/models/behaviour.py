"""Test suite for all models of the registry, on a small world with known results.

In the small world twelve items follow each other in a circle, a → b → … → l → a. Every user walks a part of the circle.
So the next item is certain, and popularity can be counted by hand. `Behaviour` has the tests of all models, and
`NextItemBehaviour` adds those of next-item models. `behaviour_ratings.py` has those of rating models.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal

import segue
from segue.data.dataset import Dataset
from segue.data.histories import Histories
from segue.data.ragged import offsets_of
from segue.data.splits.by_user import Split, leave_last_out
from segue.data.tables.table import Table
from segue.data.vocabulary import Vocabulary
from segue.errors import ConfigError, UnknownIdError
from segue.inference.asking.ids import UnknownIdWarning
from segue.inference.recommender import Recommender
from segue.models.base import ModelConfig
from segue.models.registry import config_from_dict
from tests.helpers import queries_of

ITEMS = list("abcdefghijkl")
N_USERS = 90


def small_world() -> Dataset:
    """Return walks of 4 to 8 steps around the circle, one step a day. User i starts at item i, a day after user i - 1.

    Each step is a separate session. The item table has the same shop for all items. Two neighbours of the circle share
    a pair.
    """
    lengths = 4 + np.arange(N_USERS) % 5
    steps = np.concatenate([np.arange(length) for length in lengths])
    starts = np.repeat(np.arange(N_USERS), lengths)
    return Dataset(
        items=((starts + steps) % len(ITEMS) + 1).astype(np.int32),
        offsets=offsets_of(np.concatenate([[0], lengths])),
        users=Vocabulary([f"user {i:03}" for i in range(N_USERS)]),
        catalogue=Vocabulary(ITEMS),
        times=(starts + steps).astype(np.int64) * 86_400,
        time_unit="s",
        session_offsets=np.arange(len(steps) + 1, dtype=np.int64),
        item_table=Table(
            pl.DataFrame(
                {"shop": ["one"] * len(ITEMS), "pairs": [[before(item) + item, item + after(item)] for item in ITEMS]}
            ),
            {"shop": "category", "pairs": "categories"},
            "item",
        ),
    )


def after(item: str) -> str:
    """Next item in the circle."""
    return ITEMS[(ITEMS.index(item) + 1) % len(ITEMS)]


def before(item: str) -> str:
    """Item before this one in the circle."""
    return ITEMS[ITEMS.index(item) - 1]


UNORDERED = ("tifu-knn", "up-cf", "vsknn", "vstan", "item-knn", "ease", "content-neighbours")
"""Models that compare sets of items: in the small world nobody takes an item again."""


SLOW = {"bert4rec": 45, "hstu": 45}
"""Epochs of models that need more than others: BERT4Rec learns few items of a history at a time."""


@dataclass(frozen=True)
class Fitted:
    """Model of the registry, fitted on the small world.

    Attributes
    ----------
    config
        Settings of the model.
    split
        Split of the small world with the last items held out.
    recommender
        Recommender with the whole small world as its Dataset.
    sequential
        True if the model reads histories.
    ordered
        True if the model knows which of two items comes first; else the neighbours of all seen items are as good.
    """

    config: ModelConfig
    split: Split
    recommender: Recommender
    sequential: bool
    ordered: bool = True

    def best(self, *seen: str) -> set[str]:
        """Items that may be recommended first; the popularity is counted by hand."""
        if not self.ordered:
            return {neighbour for item in seen for neighbour in (before(item), after(item))} - set(seen)
        if self.sequential:
            return {after(seen[-1])}
        age = 1 - pl.col("time").rank("max") / pl.len()
        weight = pl.lit(1.0) if "recent" not in self.config.name else (-age / 0.1 * np.log(2)).exp()
        frame = self.split.train.to_frame().with_columns(weight=weight)
        counted = frame.group_by("item").agg(pl.col("weight").sum().round(9))
        ordered = counted.sort(["weight", "item"], descending=[True, False])
        return {next(item for item in ordered["item"] if item not in seen)}

    def history(self, user: str) -> list[str]:
        """Items of a user in the small world."""
        return self.split.test.dataset.to_frame().filter(user=user)["item"].to_list()


class Behaviour:
    """Tests of all models. The fixture `fitted` has one `Fitted` per model; `twins` are trained alike, briefly."""

    # ---- known results ----------------------------------------------------------------------------------------------

    def test_the_known_item_comes_first(self, fitted: Fitted) -> None:
        lists = fitted.recommender.recommend(segue.EVERYONE, k=1)
        assert len(lists) == N_USERS
        for user in ("user 000", "user 017", "user 089"):
            first = lists.filter(user=user)["item"].item()
            assert first in fitted.best(*fitted.history(user))

    def test_histories_of_new_users(self, fitted: Fitted) -> None:
        histories = {"new": ["c", "d", "e"], "newer": ["k", "l"], "one item": ["f"], "all but one": ITEMS[:-1]}
        lists = fitted.recommender.recommend(histories=histories, k=1)
        assert lists["user"].to_list() == list(histories)
        assert all(item in fitted.best(*histories[user]) for user, item in lists.select("user", "item").iter_rows())

    # ---- content of lists -------------------------------------------------------------------------------------------

    def test_lists_are_ranked(self, fitted: Fitted) -> None:
        lists = fitted.recommender.recommend(segue.EVERYONE, k=4)
        assert lists.columns == ["user", "item", "score", "rank", "model"]
        assert lists["rank"].to_list() == [1, 2, 3, 4] * N_USERS
        assert lists.group_by("user").agg((pl.col("score").diff() <= 0).all())["score"].all()
        assert (lists["model"] == fitted.config.name).all() and lists["score"].is_finite().all()

    def test_seen_items_only_on_request(self, fitted: Fitted) -> None:
        seen = fitted.recommender.dataset.to_frame()
        without = fitted.recommender.recommend(segue.EVERYONE, k=len(ITEMS))
        assert not len(without.join(seen, on=["user", "item"]))
        assert len(without) == N_USERS * len(ITEMS) - len(seen)
        everything = fitted.recommender.recommend(segue.EVERYONE, k=len(ITEMS), exclude_seen=False)
        assert len(everything) == N_USERS * len(ITEMS)
        assert len(everything.join(seen, on=["user", "item"])) == len(seen)

    def test_allow_and_deny(self, fitted: Fitted) -> None:
        allowed = fitted.recommender.recommend("user 003", k=3, exclude_seen=False, allow=["b", "c", "d"], deny=["c"])
        assert sorted(allowed["item"]) == ["b", "d"]
        first = fitted.recommender.recommend(histories=[["a"]], k=1)["item"].item()
        second = fitted.recommender.recommend(histories=[["a"]], k=1, deny=[first])["item"].item()
        assert second == fitted.recommender.recommend(histories=[["a"]], k=2)["item"][1]

    # ---- users ------------------------------------------------------------------------------------------------------

    def test_one_by_one_or_together(self, fitted: Fitted) -> None:
        users = ["user 010", "user 000", "user 055"]
        together = fitted.recommender.recommend(users, k=5)
        assert together["user"].unique(maintain_order=True).to_list() == users
        alone = pl.concat([fitted.recommender.recommend(user, k=5) for user in users])
        assert_frame_equal(together, alone, abs_tol=1e-5)

    def test_unknown_users_are_named(self, fitted: Fitted) -> None:
        with pytest.warns(UnknownIdWarning, match="1 unknown user left out: 'nobody'"):
            lists = fitted.recommender.recommend(["user 001", "nobody"], k=2)
        assert lists["user"].to_list() == ["user 001"] * 2
        with pytest.raises(UnknownIdError, match="'nobody'"):
            fitted.recommender.recommend("nobody")

    # ---- a session in progress --------------------------------------------------------------------------------------

    def test_a_basket_is_completed_by_the_next_recommendations(self, fitted: Fitted) -> None:
        name = fitted.config.name
        baskets: dict[str, list[str]] = {"user 003": ["a", "f"], "user 017": [], "nobody": ["c"], "no one": []}
        with pytest.warns(UnknownIdWarning, match="2 unknown users answered without a history"):
            steps = fitted.recommender.complete(list(baskets), 3, basket=list(baskets.values()))
        assert steps.select("user", "step").rows() == [(user, step) for user in baskets for step in (1, 2, 3)]
        assert (
            steps["model"].to_list()
            == [name] * 9 + ["popularity" if fitted.recommender.scorer.model.needs_history else name] + [name] * 2
        )
        for user, item, score, _, source in steps.iter_rows():
            arguments = {"users": user, "basket": baskets[user], "unknown": "popular"}
            best = fitted.recommender.recommend(**arguments, k=len(ITEMS))
            assert set(best["item"]) == set(ITEMS) - set(baskets[user])
            assert np.isclose(best["score"][0], score, atol=1e-5) and best["model"][0] == source
            assert np.isclose(best.filter(item=item)["score"].item(), score, atol=1e-5)
            assert np.isclose(fitted.recommender.score(items=item, **arguments)[item].item(), score, atol=1e-5)
            baskets[user].append(item)

    # ---- scores -----------------------------------------------------------------------------------------------------

    def test_scores_are_those_of_the_lists(self, fitted: Fitted) -> None:
        lists = fitted.recommender.recommend(segue.EVERYONE, k=3)
        scores = fitted.recommender.score(segue.EVERYONE, long=True)
        joined = lists.join(scores, on=["user", "item"], how="left", maintain_order="left")
        assert np.allclose(joined["score"], joined["score_right"], atol=1e-5)
        wide = fitted.recommender.score(["user 004", "user 002"], ["d", "a"])
        assert wide.columns == ["user", "d", "a"] and wide["user"].to_list() == ["user 004", "user 002"]
        assert np.allclose(wide["d"][0], scores.filter(user="user 004", item="d")["score"].item(), atol=1e-5)

    def test_chunks_and_pairs_agree(self, fitted: Fitted) -> None:
        model = fitted.recommender.scorer.model
        with torch.inference_mode():
            queries = queries_of(model, fitted.recommender.dataset.histories().select(slice(0, 9)))
            scores = model.scores().all(queries, 0, len(ITEMS) + 1)
            assert scores.shape == (9, len(ITEMS) + 1) and scores.dtype == torch.float32
            out = torch.full((9, 4), torch.nan)
            assert model.scores().all(queries, 5, 9, out=out) is out
            assert torch.allclose(out, scores[:, 5:9], atol=1e-5)
            items = torch.tensor([[3, 1, 12]]).expand(9, -1)
            assert torch.allclose(model.scores().of(queries, items), scores.gather(1, items), atol=1e-5)

    def test_only_the_newest_max_history_items_matter(self, fitted: Fitted) -> None:
        model = fitted.recommender.scorer.model
        if model.max_history is None:
            pytest.skip("reads whole histories")
        long = Histories.from_lists([np.arange(40) % len(ITEMS) + 1])
        with torch.inference_mode():
            full, cut = (
                model.scores().all(queries_of(model, histories), 1, len(ITEMS) + 1)
                for histories in (long, long.last(model.max_history))
            )
        assert torch.allclose(full, cut, atol=1e-5)

    # ---- similar items ----------------------------------------------------------------------------------------------

    def test_similar_items(self, fitted: Fitted) -> None:
        if fitted.recommender.scorer.model.item_vectors() is None:
            with pytest.raises(ConfigError, match="no item vectors"):
                fitted.recommender.similar("a")
            return
        alike = fitted.recommender.similar(["c", "a"], k=3)
        assert alike.columns == ["item", "similar", "score", "rank"]
        assert alike["item"].to_list() == ["c"] * 3 + ["a"] * 3
        assert (alike["item"] != alike["similar"]).all()
        assert alike["score"].is_between(-1.0001, 1.0001).all()

    # ---- repeats ----------------------------------------------------------------------------------------------------

    def test_scores_are_reproducible(self, fitted: Fitted, twins: tuple[Recommender, Recommender]) -> None:
        first = fitted.recommender.score(segue.EVERYONE)
        assert_frame_equal(first, fitted.recommender.score(segue.EVERYONE), check_exact=True)
        one, other = (twin.score(segue.EVERYONE) for twin in twins)
        assert_frame_equal(one, other, check_exact=True)

    def test_saved_and_loaded(self, fitted: Fitted, tmp_path: Path) -> None:
        fitted.recommender.save(tmp_path / "saved")
        loaded = segue.load(tmp_path / "saved")
        assert loaded.model.config == fitted.recommender.model.config
        assert loaded.metadata == fitted.recommender.metadata
        assert_frame_equal(loaded.score(segue.EVERYONE), fitted.recommender.score(segue.EVERYONE), check_exact=True)
        assert_frame_equal(
            loaded.recommend(segue.EVERYONE, k=3), fitted.recommender.recommend(segue.EVERYONE, k=3), check_exact=True
        )

    def test_config_as_plain_data_and_back(self, fitted: Fitted) -> None:
        assert config_from_dict(fitted.config.to_dict()) == fitted.config
        with pytest.raises(ConfigError, match="has no setting 'nonsense'"):
            config_from_dict({**fitted.config.to_dict(), "nonsense": 1})


class NextItemBehaviour(Behaviour):
    """Tests of next-item models and of popularity."""

    def test_evaluation_measures_known_hits(self, fitted: Fitted) -> None:
        result = segue.evaluate(fitted.recommender, fitted.split.test, k=1)
        if not fitted.ordered:
            assert result.metrics["hr@1"] > 0.2  # the item before the history is as near as the one after it
        elif fitted.sequential:
            needed = 0.95 if fitted.config.name == "parsrec" else 1.0  # earlier sessions have no order
            assert result.metrics["hr@1"] >= needed
        else:
            assert result.metrics["hr@1"] < 1.0

    def test_users_without_history_get_popular_items(self, fitted: Fitted) -> None:
        popular = fitted.recommender.dataset.item_counts()
        best = ITEMS[int(popular[1:].argmax())]
        lists = fitted.recommender.recommend(histories={"empty": [], "not": ["a"]}, k=1)
        assert lists["item"][0] == best
        assert lists["model"].to_list() == ["popularity", fitted.config.name]
        lists = fitted.recommender.recommend(["user 001", "nobody"], k=1, unknown="popular")
        assert lists["item"][1] == best and lists["user"][1] == "nobody"

    def test_as_of_is_the_history_until_then(self, fitted: Fitted) -> None:
        day = datetime(1970, 1, 13, tzinfo=UTC)
        then = fitted.recommender.recommend("user 010", k=3, as_of=day)
        given = fitted.recommender.recommend(histories={"user 010": fitted.history("user 010")[:2]}, k=3)
        assert_frame_equal(then, given, abs_tol=1e-5)

    def test_reasons_are_differences_of_scores(self, fitted: Fitted) -> None:
        seen = ["b", "c", "d", "e"]
        reasons = fitted.recommender.explain(items=["f", "a"], histories=[seen])
        depth = min(len(seen), fitted.recommender.scorer.model.max_history or len(seen))
        assert len(reasons) == 2 * depth
        for item in ("f", "a"):
            rows = reasons.filter(item=item)
            assert rows["effect"].is_sorted(descending=True)
            for because, position, score, effect in rows.select("because", "position", "score", "effect").iter_rows():
                assert seen[position - 1] == because
                others = [other for other in seen if other != because]
                full, less = fitted.recommender.score(items=item, histories=[seen, others])[item]
                assert score == pytest.approx(full, abs=1e-5)
                assert effect == pytest.approx(full - less, abs=1e-5)
        if not fitted.sequential:
            assert (reasons["effect"] == 0).all()

    def test_the_newest_item_is_the_reason_for_the_next(self, fitted: Fitted) -> None:
        if not fitted.sequential or not fitted.ordered:
            pytest.skip("the order of histories does not matter")
        lists = fitted.recommender.recommend(["user 001", "user 002"], k=1)
        reasons = fitted.recommender.explain(lists["user"], lists["item"], top=1)
        assert reasons["because"].to_list() == [fitted.history(user)[-1] for user in lists["user"]]
        assert (reasons["effect"] > 0).all()
        lone = fitted.recommender.explain(items="b", histories=[["a"]])
        # The reference of a lone item is a popular item in its place; "b" itself is one, which counts for a repeat.
        assert lone["effect"].item() > 0 or fitted.config.name == "personal-frequency"


def fit_twins(fitted: Fitted) -> tuple[Recommender, Recommender]:
    """Fit a model twice in the same way, for few epochs."""
    one, other = (fit(fitted.config, fitted.split, epochs=3) for _ in range(2))
    return one, other


def fit_small_world(config: ModelConfig) -> Fitted:
    """Fit `config` on the small world in a few seconds."""
    split = leave_last_out(small_world())
    fitted = fit(config, split, SLOW.get(config.name, 25))
    return Fitted(config, split, fitted, "popularity" not in config.name, config.name not in UNORDERED)


def fit(config: ModelConfig, split: Split, epochs: int = 25) -> Recommender:
    """Fit `config` on a split of a small world."""
    training = segue.Training(epochs=epochs, batch_size=16, learning_rate=0.01, validate_every=epochs, cpu=True)
    return segue.fit(config, split, training=training, quiet=True)
