"""What every model of ratings must do: the suite of `behaviour.py`, on a small world in which people rate.

They walk the same circle, and rate what they meet: an item has its own level, and every other user is strict and takes
one off. So the best item that somebody has not met is certain, and so is what each would rate it.
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
"""What people who are not strict rate."""


def strict(user: str) -> bool:
    """Whether a user of the small world rates one lower."""
    return int(user.removeprefix("user ")) % 2 == 1


def rated_world() -> Dataset:
    """The small world, rated from 1 to 5."""
    world = small_world()
    levels = np.array([0, *LEVELS.values()])[world.items]
    users = rows_of(world.starts, world.ends)
    return replace(world, ratings=(levels - (users - 1) % 2).astype(np.float32))


@dataclass(frozen=True)
class FittedRatings(Fitted):
    """A model of ratings, fitted on the rated world."""

    def best(self, *seen: str) -> set[str]:
        """Of the items that are not seen, those of the highest level; the first of all for who knows no levels."""
        unseen = [item for item in ITEMS if item not in seen]
        if self.config.name == "global-mean":
            return {unseen[0]}
        return {item for item in unseen if LEVELS[item] == max(map(LEVELS.__getitem__, unseen))}


def fit_rated_world(config: ModelConfig) -> FittedRatings:
    """Fit `config` in a few seconds."""
    split = leave_last_out(rated_world())
    return FittedRatings(config, split, fit(config, split), sequential=False)


class RatingBehaviour(Behaviour):
    """What is expected of models of ratings."""

    def test_it_expects_what_was_planted(self, fitted: FittedRatings) -> None:
        frame = fitted.recommender.score(long=True)
        assert len(frame) == N_USERS * len(ITEMS)
        planted = [LEVELS[item] - strict(user) for user, item in frame.select("user", "item").iter_rows()]
        if fitted.config.name == "global-mean":
            mean = fitted.split.train.to_frame()["rating"].mean()
            assert frame["score"].to_list() == pytest.approx([mean] * len(frame))
        else:
            assert np.sqrt(np.mean((frame["score"].to_numpy() - planted) ** 2)) < 0.35

    def test_lists_are_answered_in_evaluation(self, fitted: FittedRatings) -> None:
        result = segue.evaluate(fitted.recommender, fitted.split.test, k=(1, len(ITEMS)))
        assert result.metrics[f"hr@{len(ITEMS)}"] == 1.0
        assert 0 <= result.metrics["hr@1"] < 1

    def test_people_without_history_are_answered_as_someone_unknown(self, fitted: FittedRatings) -> None:
        lists = fitted.recommender.recommend(histories={"empty": [], "not": ["b"]}, k=2)
        assert (lists["model"] == fitted.config.name).all()
        assert lists["item"][0] in fitted.best() and lists["item"][2] in fitted.best("b")
        scores = fitted.recommender.score(["user 001", "nobody"], long=True, unknown="popular")
        assert (scores["model"] == fitted.config.name).all()
        someone = fitted.recommender.score(histories=[[]], long=True)
        assert scores.filter(user="nobody")["score"].to_list() == pytest.approx(someone["score"].to_list(), abs=1e-5)
        # Somebody unknown is neither strict nor not.
        if fitted.config.name != "global-mean":
            assert someone.filter(item="b")["score"].item() == pytest.approx(4.5, abs=0.4)

    def test_given_histories_say_only_what_was_seen(self, fitted: FittedRatings) -> None:
        scores = fitted.recommender.score(histories={"one": ["a", "b"], "other": ["c"]})
        assert scores.row(0)[1:] == pytest.approx(scores.row(1)[1:], abs=1e-5)
        lists = fitted.recommender.recommend(histories={"one": ["a", "b"]}, k=len(ITEMS))
        assert sorted(lists["item"]) == ITEMS[2:]

    def test_as_of_is_what_was_seen_until_then(self, fitted: FittedRatings) -> None:
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

    def test_users_who_are_unknown_and_named_in_a_basket(self, fitted: FittedRatings) -> None:
        with pytest.warns(UnknownIdWarning, match="answered without a history"):
            lists = fitted.recommender.recommend("nobody", basket=["b"], k=len(ITEMS))
        assert set(lists["item"]) == set(ITEMS) - {"b"} and lists["item"][0] in fitted.best("b")

    def test_ratings_are_needed(self, fitted: FittedRatings) -> None:
        with pytest.raises(segue.SegueError, match="no ratings"):
            segue.fit(fitted.config, leave_last_out(small_world()), quiet=True)

    def test_only_visible_ratings_count(self, fitted: FittedRatings) -> None:
        # The parts held out say the opposite: nothing of it may be known.
        world, train = fitted.split.dataset, fitted.split.train
        assert world.ratings is not None
        hidden = np.ones(len(world.items), dtype=bool)
        hidden[np.concatenate([np.arange(*pair) for pair in zip(train.starts, train.ends, strict=True)])] = False
        told = replace(world, ratings=np.where(hidden, 1, world.ratings).astype(np.float32))
        other = fit(fitted.config, replace(leave_last_out(told), validation=fitted.split.validation))
        first, second = (answers.score(long=True)["score"] for answers in (fitted.recommender, other))
        assert first.to_list() == pytest.approx(second.to_list(), abs=1e-5)
