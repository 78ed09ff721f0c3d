from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal
from torch import Tensor

from segue.cli.main import main
from segue.data.dataset import Dataset
from segue.data.histories import NOW
from segue.data.splits.by_user import leave_last_out
from segue.errors import ConfigError, EvaluationError
from segue.evaluation.report.examples import examples_of
from segue.evaluation.tasks.next_items import evaluate
from segue.inference.asking.everyone import EVERYONE
from segue.inference.asking.ids import UnknownIdWarning, UnratedItemWarning
from segue.inference.explaining import neighbours
from segue.inference.recommender import Recommender
from segue.models import registry
from segue.models.base import ModelConfig
from segue.models.rating_bias import GlobalMean, RatingBias
from segue.models.ratings import Neighbours, Rated, RatingModel
from tests.helpers import make_dataset

HISTORIES = {"ann": ["tea", "jam"], "bob": ["tea", "oats"], "cy": ["tea", "jam", "oats"], "dan": ["jam"]}
TIMES = {"ann": [10, 20], "bob": [30, 40], "cy": [35, 50, 60], "dan": [70]}
RATINGS = {"ann": [5, 4], "bob": [3, 1], "cy": [2, 5, 4], "dan": [1.5]}
CATALOGUE = ["jam", "milk", "oats", "tea"]


@dataclass(frozen=True)
class MeanOfOthersConfig(ModelConfig):
    """Settings of `MeanOfOthers`."""

    heads: int = 2

    name: ClassVar[str] = "mean-of-others"

    def build(self, n_users: int, n_items: int) -> MeanOfOthers:
        return MeanOfOthers(self, n_users, n_items)


class MeanOfOthers(RatingModel):
    """Expected rating: mean of the earlier ratings of the item by other users in HISTORIES; 3 without any."""

    config: MeanOfOthersConfig

    def __init__(self, config: MeanOfOthersConfig, n_users: int, n_items: int) -> None:
        super().__init__(config, n_users, n_items)
        codes = {user: code for code, user in enumerate(sorted(HISTORIES), 1)}
        self.log = sorted(
            (time, codes[user], CATALOGUE.index(item) + 1, rating)
            for user in HISTORIES
            for item, time, rating in zip(HISTORIES[user], TIMES[user], RATINGS[user], strict=True)
        )

    def before(self, user: int, item: int, as_of: int) -> list[tuple[int, int, float, int]]:
        """Position, neighbour, rating and time of the earlier ratings of an item, oldest first."""
        rated = [(other, rating, time) for time, other, code, rating in self.log if code == item]
        return [
            (position, other, rating, time)
            for position, (other, rating, time) in enumerate(rated, 1)
            if other != user and time < as_of
        ]

    def rate(self, users: Tensor, items: Tensor, moments: Tensor) -> Rated:
        expected = [
            float(np.mean([rating for _, _, rating, _ in self.before(*pair)] or [3.0]))
            for pair in zip(users.tolist(), items.tolist(), moments.tolist(), strict=True)
        ]
        return Rated(torch.tensor(expected, dtype=torch.float32), None)

    def unrated(self) -> Tensor:
        rated = [code for _, _, code, _ in self.log]
        return torch.tensor([code > 0 and code not in rated for code in range(self.n_items + 1)])

    def neighbours(self, users: Tensor, items: Tensor, moments: Tensor) -> Neighbours:
        rows = []
        for row, pair in enumerate(zip(users.tolist(), items.tolist(), moments.tolist(), strict=True)):
            earlier = self.before(*pair)
            ratings = [rating for _, _, rating, _ in earlier]
            for index, (position, other, rating, time) in enumerate(earlier):
                less = np.mean([*ratings[:index], *ratings[index + 1 :]] or [3.0])
                share = 1 / len(earlier)
                rows.append((row, other, rating, position, time, share, np.mean(ratings) - less))
        table = np.array(rows, dtype=np.float64).reshape(-1, 7)
        whole = table[:, :5].astype(np.int64)
        heads = self.config.heads
        return Neighbours(
            whole[:, 0],
            whole[:, 1],
            table[:, 2].astype(np.float32),
            whole[:, 3],
            whole[:, 4],
            np.repeat(table[:, 5:6], heads, axis=1).astype(np.float32) if heads else None,
            2 * table[:, 5].astype(np.float32) if heads else None,
            table[:, 5].astype(np.float32),
            table[:, 6].astype(np.float32),
        )


def data() -> Dataset:
    return make_dataset(HISTORIES, TIMES, RATINGS, CATALOGUE)


def recommender(heads: int = 2) -> Recommender:
    return Recommender(MeanOfOthers(MeanOfOthersConfig(heads), 4, 4), data())


def biased(config: ModelConfig | None = None) -> Recommender:
    model: Any = (config or RatingBias()).build(4, 4)
    model.count(data())
    return Recommender(model, data())


# ---- answers -------------------------------------------------------------------------------------------------------


def test_lists_and_scores_are_expected_ratings() -> None:
    lists = recommender().recommend("ann", k=2, deny=["milk"])
    assert lists.rows() == [("ann", "oats", 2.5, 1, "mean-of-others")]
    wide = recommender().score(["dan", "ann"], ["tea", "jam"])
    assert wide.rows() == [("dan", pytest.approx(10 / 3), 4.5), ("ann", 2.5, 3.25)]
    long = recommender().score(["dan"], ["tea"], long=True)
    assert long.rows() == [("dan", "tea", pytest.approx(10 / 3), "mean-of-others")]


def test_as_of_is_the_time_of_the_question() -> None:
    answers = recommender()
    # Before 35, ann and bob had rated tea. dan had no history then, and is answered too.
    assert answers.score("dan", "tea", as_of=35)["tea"].item() == 4.0
    assert answers.score(["dan", "cy"], "tea", as_of=36, long=True)["score"].to_list() == [pytest.approx(10 / 3), 4.0]
    assert answers.score("dan", "tea", as_of=5, long=True).rows() == [("dan", "tea", 3.0, "mean-of-others")]
    assert answers.explain("dan", "tea", as_of=35)["because"].to_list() == ["bob", "ann"]
    with_basket = answers.score("dan", "tea", basket=["oats"], as_of=35)
    assert with_basket["tea"].item() == 4.0, "as_of is kept if a basket is appended to the history"
    steps = answers.complete("dan", 2, basket=["oats"], deny=["milk"], as_of=35)
    assert steps.select("item", "score").rows() == [("jam", 4.0), ("tea", 4.0)]


def test_questions_of_a_holdout_have_the_time_of_their_targets() -> None:
    split = leave_last_out(data())
    histories = split.test.histories()
    scorer = recommender().scorer
    scores = scorer.score_items(scorer.queries(histories), torch.tensor([[3]]))
    assert histories.users.tolist() == [3] and scores.item() == 1.0, "cy's oats at 60, after bob's at 40"
    assert np.isfinite(evaluate(recommender(), split.test, k=1).metrics["hr@1"])


def test_unknown_users_are_answered_by_the_model() -> None:
    for answers in (recommender(), biased()):
        name = answers.model.config.name
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnratedItemWarning)
            lists = answers.recommend(["ann", "nobody"], k=4, unknown="popular")
            given = answers.recommend(histories={"nobody": [], "x": ["tea"]}, k=4)
        assert (lists["model"] == name).all() and (given["model"] == name).all()
        assert_frame_equal(lists.filter(user="nobody"), given.filter(user="nobody"))
        assert set(given.filter(user="x")["item"]) == {"jam", "milk", "oats"}
        with pytest.warns(UnknownIdWarning, match="left out: 'nobody'"):
            assert answers.recommend(["ann", "nobody"], k=1, deny=["milk"])["user"].to_list() == ["ann"]


# ---- items without ratings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("answers", [recommender(), biased(), biased(GlobalMean())], ids=["near", "bias", "mean"])
def test_items_without_ratings_are_named(answers: Recommender, tmp_path: Path) -> None:
    message = "1 item has no ratings in training: .*'milk'"
    questions = [
        lambda: answers.score("ann", ["tea", "milk"]),
        lambda: answers.recommend("ann", k=4),
        lambda: answers.complete("ann", 4),
        lambda: answers.export(tmp_path / "lists.csv", EVERYONE, k=4, chunk=1),
    ]
    for ask in questions:
        with pytest.warns(UnratedItemWarning, match=message) as caught:
            ask()
        assert len(caught) == 1 and caught[0].filename == __file__
        assert isinstance(caught[0].message, UnratedItemWarning) and caught[0].message.ids == ["milk"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        answers.score("ann", ["tea", "jam"])
        answers.recommend("ann", k=4, deny=["milk"])


def test_an_explained_item_without_ratings_is_named() -> None:
    with pytest.warns(UnratedItemWarning, match="'milk'"):
        assert not len(recommender().explain("ann", "milk"))


# ---- reasons -------------------------------------------------------------------------------------------------------


def test_reasons_by_hand() -> None:
    reasons = recommender().explain("dan", ["tea", "oats"])
    assert reasons.columns == [
        *("user", "item", "score", "kind", "because", "position", "time"),
        *("rating", "attention", "agreement", "decided", "effect"),
    ]
    mean, third, twice = pytest.approx(10 / 3), pytest.approx(1 / 3), pytest.approx(2 / 3)
    assert reasons.rows() == [
        ("dan", "tea", mean, "neighbour", "ann", 1, 10, 5.0, third, twice, third, pytest.approx(10 / 3 - 2.5)),
        ("dan", "tea", mean, "neighbour", "cy", 3, 35, 2.0, third, twice, third, pytest.approx(10 / 3 - 4)),
        ("dan", "tea", mean, "neighbour", "bob", 2, 30, 3.0, third, twice, third, pytest.approx(10 / 3 - 3.5)),
        ("dan", "oats", 2.5, "neighbour", "cy", 2, 60, 4.0, 0.5, 1.0, 0.5, 1.5),
        ("dan", "oats", 2.5, "neighbour", "bob", 1, 40, 1.0, 0.5, 1.0, 0.5, -1.5),
    ]


def test_top_pairs_and_unknown_users() -> None:
    answers = recommender()
    whole = answers.explain(["dan", "ann", "dan"], ["tea", "oats", "jam"])
    best = answers.explain(["dan", "ann", "dan"], ["tea", "oats", "jam"], top=1)
    assert best.select("user", "item", "because").rows() == [
        ("dan", "tea", "ann"),
        ("ann", "oats", "cy"),
        ("dan", "jam", "cy"),
    ]
    assert_frame_equal(best, whole.group_by("user", "item", maintain_order=True).head(1).select(best.columns))
    unknown = answers.explain(items="tea", histories=[[]])
    assert unknown["because"].to_list() == ["ann", "cy", "bob"]
    assert len(answers.explain("dan", "tea", by=["neighbour"])) == 3
    with pytest.warns(UnknownIdWarning, match="'nobody'"):
        assert answers.explain(["nobody", "dan"], "tea")["user"].unique().to_list() == ["dan"]


def test_portions_do_not_change_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = (["dan", "ann", "dan", "cy", "bob"], ["tea", "oats", "jam", "milk", "jam"])
    with pytest.warns(UnratedItemWarning):
        whole = recommender().explain(*pairs)
    monkeypatch.setattr(neighbours, "_PAIRS", 2)
    with pytest.warns(UnratedItemWarning):
        assert_frame_equal(recommender().explain(*pairs), whole)


def test_attention_is_null_and_time_is_left_out_if_the_model_has_none() -> None:
    assert recommender(heads=0).explain("dan", "tea")["attention"].null_count() == 3
    answers = recommender()
    neighbours_of = answers.scorer.model.neighbours  # type: ignore[operator]
    answers.scorer.model.neighbours = lambda *question: neighbours_of(*question)._replace(times=None)  # type: ignore[assignment]
    assert "time" not in answers.explain("dan", "tea").columns


def test_effects_that_are_not_finite_are_refused() -> None:
    answers = recommender()
    neighbours_of = answers.scorer.model.neighbours  # type: ignore[operator]
    broken = lambda *question: neighbours_of(*question)._replace(effects=np.full(3, np.nan, dtype=np.float32))  # noqa: E731
    answers.scorer.model.neighbours = broken  # type: ignore[assignment]
    with pytest.raises(EvaluationError, match="not finite"):
        answers.explain("dan", "tea")


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: recommender().explain("dan", "tea", by="item"), "'mean-of-others' predicts ratings and reads no hist"),
        (lambda: recommender().explain("dan", "tea", by="neighbor"), 'did you mean "neighbour"'),
        (lambda: recommender().explain("dan", "tea", by=[]), "names no kind"),
        (lambda: recommender().explain("dan", "tea", measure="log-probability"), "is an expected rating"),
        (lambda: biased().explain("dan", "tea"), "'rating-bias' predicts ratings without neighbours"),
        (lambda: recommender().attention("dan"), "has no attention"),
    ],
)
def test_impossible_questions(ask: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ask()


def test_a_model_may_answer_that_it_has_no_neighbours() -> None:
    answers = recommender()
    answers.scorer.model.neighbours = lambda *question: None  # type: ignore[assignment]
    with pytest.raises(ConfigError, match="predicts ratings without neighbours"):
        answers.explain("dan", "tea")


def test_examples_name_neighbours_and_their_ratings() -> None:
    (dan,) = examples_of(recommender(), ["dan"], k=1)
    assert dan.suggestions[0].item == "tea"
    assert dan.suggestions[0].reasons == [("ann (rated it 5)", pytest.approx(10 / 3 - 2.5))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnratedItemWarning)
        (plain,) = examples_of(biased(), ["dan"], k=3)
    assert len(plain.suggestions) == 3 and not any(suggestion.reasons for suggestion in plain.suggestions)


# ---- the command line ----------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setitem(registry._HOMES, "mean-of-others", f"{__name__}:MeanOfOthersConfig")
    dated = replace(data(), times=data().times + 1_700_000_000)  # type: ignore[operator]
    answers = Recommender(recommender().model, dated)
    yield answers.save(tmp_path / "saved")


def test_the_command_prints_neighbours(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["explain", str(saved), "--user", "dan", "--item", "tea"]
    assert main([*words, "--json", "--top", "2"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["kind"], row["because"], row["rating"]) for row in rows] == [
        ("neighbour", "ann", 5.0),
        ("neighbour", "cy", 2.0),
    ]
    assert main([*words, "--by", "neighbour"]) == 0
    printed = capsys.readouterr()
    assert "neighbour" in printed.out and "1970-01-01" in printed.out
    assert "minus the one without that neighbour" in printed.out + printed.err
    for option in (["--picture", "x.png"], ["--by", "item"], ["--measure", "log-probability"]):
        assert main([*words, *option]) == 2


def test_now_is_after_everything() -> None:
    frame = pl.DataFrame(recommender().score("dan", "tea"))
    assert frame["tea"].item() == pytest.approx(10 / 3)
    queries = recommender().scorer.queries(data().histories())
    assert (queries[:, 1] == NOW).all()
