"""Test suite for all rating models: that of `behaviour.py`, on a small world with ratings.

Users walk the same circle and rate each item. An item has its own level, and every other user is strict and rates one
lower. So the best unseen item of a user is certain, and so is the rating that the user would give.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
import pytest

import segue
from segue.data.dataset import Dataset
from segue.data.ragged import rows_of
from segue.data.splits.by_user import leave_last_out
from segue.errors import ConfigError
from segue.inference.asking.ids import UnknownIdWarning
from segue.inference.explaining.neighbours import gives_reasons
from segue.models.base import ModelConfig
from tests.models.behaviour import ITEMS, N_USERS, Behaviour, Fitted, fit, small_world

LEVELS = dict(zip(ITEMS, [3, 5, 2, 4, 2, 5, 3, 4, 3, 5, 2, 4], strict=True))
"""Ratings of users who are not strict."""


def strict(user: str) -> bool:
    """Check that a user of the small world rates one lower."""
    return int(user.removeprefix("user ")) % 2 == 1


def rated_world() -> Dataset:
    """Return the small world with ratings from 1 to 5."""
    world = small_world()
    levels = np.array([0, *LEVELS.values()])[world.items]
    users = rows_of(world.starts, world.ends)
    return replace(world, ratings=(levels - (users - 1) % 2).astype(np.float32))


@dataclass(frozen=True)
class FittedRatings(Fitted):
    """Rating model, fitted on the rated world."""

    def best(self, *seen: str) -> set[str]:
        """Unseen items of the highest level; the first unseen item for a model without item levels."""
        unseen = [item for item in ITEMS if item not in seen]
        if self.config.name == "global-mean":
            return {unseen[0]}
        return {item for item in unseen if LEVELS[item] == max(map(LEVELS.__getitem__, unseen))}


def fit_rated_world(config: ModelConfig) -> FittedRatings:
    """Fit `config` on the rated world in a few seconds."""
    split = leave_last_out(rated_world())
    return FittedRatings(config, split, fit(config, split), sequential=False)


class RatingBehaviour(Behaviour):
    """Tests of rating models."""

    def test_expected_ratings_are_the_true_ones(self, fitted: FittedRatings) -> None:
        frame = fitted.recommender.score(segue.EVERYONE, long=True)
        assert len(frame) == N_USERS * len(ITEMS)
        planted = [LEVELS[item] - strict(user) for user, item in frame.select("user", "item").iter_rows()]
        if fitted.config.name == "global-mean":
            mean = fitted.split.train.to_frame()["rating"].mean()
            assert frame["score"].to_list() == pytest.approx([mean] * len(frame))
        else:
            assert np.sqrt(np.mean((frame["score"].to_numpy() - planted) ** 2)) < 0.35

    def test_rankings_are_evaluated(self, fitted: FittedRatings) -> None:
        result = segue.evaluate(fitted.recommender, fitted.split.test, k=(1, len(ITEMS)))
        assert result.metrics[f"hr@{len(ITEMS)}"] == 1.0
        assert 0 <= result.metrics["hr@1"] < 1

    def test_users_without_history_are_scored_as_unknown_users(self, fitted: FittedRatings) -> None:
        lists = fitted.recommender.recommend(histories={"empty": [], "not": ["b"]}, k=2)
        assert (lists["model"] == fitted.config.name).all()
        assert lists["item"][0] in fitted.best() and lists["item"][2] in fitted.best("b")
        scores = fitted.recommender.score(["user 001", "nobody"], long=True, unknown="popular")
        assert (scores["model"] == fitted.config.name).all()
        unknown = fitted.recommender.score(histories=[[]], long=True)
        assert scores.filter(user="nobody")["score"].to_list() == pytest.approx(unknown["score"].to_list(), abs=1e-5)
        # An unknown user gets the mean of strict and other users.
        if fitted.config.name != "global-mean":
            assert unknown.filter(item="b")["score"].item() == pytest.approx(4.5, abs=0.4)

    def test_given_histories_change_only_the_seen_items(self, fitted: FittedRatings) -> None:
        scores = fitted.recommender.score(histories={"one": ["a", "b"], "other": ["c"]})
        assert scores.row(0)[1:] == pytest.approx(scores.row(1)[1:], abs=1e-5)
        lists = fitted.recommender.recommend(histories={"one": ["a", "b"]}, k=len(ITEMS))
        assert sorted(lists["item"]) == ITEMS[2:]

    def test_as_of_limits_the_seen_items(self, fitted: FittedRatings) -> None:
        day = datetime(1970, 1, 13, tzinfo=UTC)
        then = fitted.recommender.recommend("user 010", k=len(ITEMS), as_of=day)
        assert set(then["item"]) == set(ITEMS) - set(fitted.history("user 010")[:2])
        scores = fitted.recommender.score("user 010", long=True, as_of=day)
        joined = then.join(scores, on=["user", "item"], how="left", maintain_order="left")
        assert np.allclose(joined["score"], joined["score_right"], atol=1e-5)

    def test_reasons_are_neighbours(self, fitted: FittedRatings) -> None:
        if not gives_reasons(fitted.recommender.scorer.model):
            with pytest.raises(
                ConfigError, match=f"the model '{fitted.config.name}' predicts ratings without neighbours"
            ):
                fitted.recommender.explain("user 001", "a")
            return
        reasons = fitted.recommender.explain("user 001", ["a", "b"])
        assert reasons["effect"].is_finite().all() and (reasons["kind"] == "neighbour").all()
        ratings = fitted.split.train.to_frame().select("item", because="user", given="rating", at="time")
        joined = reasons.join(ratings, on=["item", "because"], how="left")
        assert (joined["rating"] == joined["given"]).all() and (joined["because"] != "user 001").all()
        for _, part in reasons.group_by("item"):
            assert part["effect"].abs().is_sorted(descending=True)

    def test_unknown_users_with_a_basket(self, fitted: FittedRatings) -> None:
        with pytest.warns(UnknownIdWarning, match="answered without a history"):
            lists = fitted.recommender.recommend("nobody", basket=["b"], k=len(ITEMS))
        assert set(lists["item"]) == set(ITEMS) - {"b"} and lists["item"][0] in fitted.best("b")

    def test_ratings_are_needed(self, fitted: FittedRatings) -> None:
        with pytest.raises(segue.SegueError, match="no ratings"):
            segue.fit(fitted.config, leave_last_out(small_world()), quiet=True)

    def test_only_visible_ratings_count(self, fitted: FittedRatings) -> None:
        # The held-out ratings are changed, which must not change the scores.
        world, train = fitted.split.dataset, fitted.split.train
        assert world.ratings is not None
        hidden = np.ones(len(world.items), dtype=bool)
        hidden[np.concatenate([np.arange(*pair) for pair in zip(train.starts, train.ends, strict=True)])] = False
        changed = replace(world, ratings=np.where(hidden, 1, world.ratings).astype(np.float32))
        other = fit(fitted.config, replace(leave_last_out(changed), validation=fitted.split.validation))
        first, second = (
            recommender.score(segue.EVERYONE, long=True)["score"] for recommender in (fitted.recommender, other)
        )
        assert first.to_list() == pytest.approx(second.to_list(), abs=1e-5)
