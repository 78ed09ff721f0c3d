from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal

import segue
from segue.data.histories import Histories
from segue.errors import ConfigError, DataError, UnknownIdError
from segue.inference.asking.ids import UnknownIdWarning
from segue.inference.explaining import effects, left_out
from segue.inference.explaining.repeats import repeat_text, with_texts
from segue.inference.recommender import Recommender
from tests.inference.fakes import Attentive, Dot, dataset, random_dataset, session_dataset

VECTORS = np.random.default_rng(3).normal(size=(31, 5)).astype(np.float32)


def recommender(n_users: int = 40, longest: int = 9, max_history: int | None = 50) -> Recommender:
    """A model whose scores are sums of dot products over the newest items, so every effect is known."""
    model = Dot(VECTORS)
    model.n_users, model.max_history = n_users, max_history
    return Recommender(model, random_dataset(n_users, 30, longest))


def test_effects_of_a_sum_are_its_terms() -> None:
    answers = recommender()
    lists = answers.recommend(segue.EVERYONE, k=3)
    reasons = answers.explain(lists["user"], lists["item"])
    left, right = (VECTORS[(reasons[name] // 10).to_numpy()] for name in ("because", "item"))
    assert np.allclose(reasons["effect"], (left * right).sum(1), atol=1e-4)
    # The effects of a linear model add up to the score.
    sums = reasons.group_by("user", "item").agg(total=pl.col("effect").sum())
    scores = lists.select("user", "item", "score")
    joined = scores.join(sums, on=["user", "item"], maintain_order="left")
    assert np.allclose(joined["score"], joined["total"], atol=1e-3)


def test_an_older_item_moves_up_when_a_newer_is_left_out() -> None:
    model = Newest(VECTORS)
    answers = Recommender(model, dataset([[1, 2, 3]], 30))
    reasons = answers.explain(1, 40)
    # The model reads two items: without 3 it reads 1 and 2.
    assert reasons["because"].sort().to_list() == [20, 30]
    expected = VECTORS[4] @ (VECTORS[3] - VECTORS[1])
    assert reasons.filter(because=30)["effect"].item() == pytest.approx(expected, abs=1e-5)
    assert reasons.filter(because=30)["position"].item() == 3


class Newest(Dot):
    """Model that sums the newest two items only."""

    max_history = 2

    def __init__(self, vectors: np.ndarray) -> None:
        super().__init__(vectors)
        self.n_users = 1

    def queries(self, histories: Histories) -> torch.Tensor:
        return super().queries(histories.last(2))


def test_the_only_item_is_compared_with_popular_ones() -> None:
    answers = recommender()
    counts = answers.dataset.item_counts()
    references = np.argsort(-counts[1:], kind="stable")[: effects.REFERENCES] + 1
    reasons = answers.explain(items=50, histories=[[70]])
    expected = VECTORS[5] @ (VECTORS[7] - VECTORS[references].mean(0))
    assert reasons["effect"].item() == pytest.approx(expected, abs=1e-4)
    assert reasons["score"].item() == pytest.approx(VECTORS[5] @ VECTORS[7], abs=1e-4)


def test_portions_do_not_change_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = recommender()
    lists = answers.recommend(segue.EVERYONE, k=2).sample(fraction=1.0, shuffle=True, seed=1)
    whole = answers.explain(lists["user"], lists["item"])
    monkeypatch.setattr(left_out, "_MAX_ITEMS", 200)
    parts = answers.explain(lists["user"], lists["item"])
    keys = ["user", "item", "position"]  # rounding may change the order of equal effects
    assert_frame_equal(parts.sort(keys), whole.sort(keys), abs_tol=1e-4)


def test_order_and_top() -> None:
    answers = recommender()
    reasons = answers.explain([3, 1], [100, 200])
    assert reasons["user"].unique(maintain_order=True).to_list() == [3, 1]
    for _, part in reasons.group_by("user"):
        assert part["effect"].is_sorted(descending=True)
    top = answers.explain([3, 1], [100, 200], top=2)
    assert_frame_equal(top, reasons.group_by("user", maintain_order=True).head(2).select(top.columns), abs_tol=1e-5)


def test_one_user_or_item_with_many_and_pairs() -> None:
    answers = recommender()
    assert answers.explain(1, [10, 20]).select("user", "item").unique().shape == (2, 2)
    assert answers.explain([1, 2], 10).select("user", "item").unique().shape == (2, 2)
    assert answers.explain([1, 2], [10, 20]).select("user", "item").unique().shape == (2, 2)
    assert answers.explain(histories={"x": [10, 20], "y": [30, 40]}, items=50)["user"].unique().len() == 2


def test_unknown_ids_and_empty_histories() -> None:
    answers = recommender()
    with pytest.warns(UnknownIdWarning, match="1 unknown user left out: 99"):
        assert answers.explain([1, 99], [10, 20])["user"].unique().to_list() == [1]
    with pytest.warns(UnknownIdWarning, match="1 unknown item left out: 15"):
        assert answers.explain(1, [10, 15])["item"].unique().to_list() == [10]
    assert not len(answers.explain(histories=[[]], items=10))


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        (lambda r: r.explain([1, 2], [10, 20, 30]), DataError, "2 users and 3 items make no pairs"),
        (lambda r: r.explain(items=10), ConfigError, "no users are named"),
        (lambda r: r.explain(99, 10), UnknownIdError, "unknown user: 99"),
        (lambda r: r.explain(1, 11), UnknownIdError, "unknown item: 11"),
        (lambda r: r.explain(1, 10, histories=[[10]]), ConfigError, "not both"),
    ],
)
def test_impossible_questions(ask: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ask(recommender())


# ---- sessions in progress ------------------------------------------------------------------------------------------


def shopper() -> Recommender:
    """Two users with sessions, and a model that reads the user, the sessions and the basket."""
    return Recommender(Attentive(2, 6), session_dataset([[[1, 2], [3]], [[4], [5, 6]]], 6))


def test_with_a_basket_all_kinds_but_items_are_left_out() -> None:
    reasons = shopper().explain(1, 60, basket=[40, 50])
    assert reasons.columns == ["user", "item", "score", "kind", "because", "position", "items", "attention", "effect"]
    by_kind = reasons.sort("kind", "position")
    assert by_kind.select("kind", "because", "position", "items").rows() == [
        ("basket", 40, 1, 1),
        ("basket", 50, 2, 1),
        ("session", None, 1, 2),
        ("session", None, 2, 1),
        ("user", None, None, 0),
    ]
    model = Attentive(2, 6)
    vector = model.vectors[6]
    full = vector @ model.query(1, [[1, 2], [3]], [4, 5])
    left_out = [
        model.query(1, [[1, 2], [3]], [5]),
        model.query(1, [[1, 2], [3]], [4]),
        model.query(1, [[3]], [4, 5]),
        model.query(1, [[1, 2]], [4, 5]),
        model.query(0, [[1, 2], [3]], [4, 5]),
    ]
    assert by_kind["effect"].to_list() == pytest.approx([full - vector @ query for query in left_out], abs=1e-4)
    assert by_kind["attention"].to_list()[:2] == pytest.approx([(1 / 2 + 4 / 9) / 2, (1 / 2 + 5 / 9) / 2])
    assert by_kind["attention"].null_count() == 3
    assert reasons["effect"].is_sorted(descending=True)


def test_kinds_on_request() -> None:
    answers = shopper()
    assert answers.explain(1, 60)["kind"].unique().to_list() == ["item"]
    answer = answers.explain([1, 2], 60, by=["item", "session"])
    assert answer.filter(user=2, kind="item").sort("position")["because"].to_list() == [40, 50, 60]
    assert answer.filter(user=2, kind="session").sort("position")["items"].to_list() == [1, 2]
    items = answers.explain(1, 60, basket=[40], by="item")
    assert items.sort("position")["because"].to_list() == [10, 20, 30]
    many = answers.explain([2, 1, 2], [10, 20, 30], basket={1: [40], 2: [10, 20]}, by="basket")
    assert many.select("user", "item").unique(maintain_order=True).rows() == [(2, 10), (1, 20), (2, 30)]
    assert many.filter(user=2)["because"].unique().sort().to_list() == [10, 20]


def test_an_unknown_user_has_no_user_effect_and_the_only_item_is_compared() -> None:
    answers = shopper()
    answer = answers.explain(items=60, basket=[40])
    assert answer.select("kind", "because").rows() == [("basket", 40)]
    counts = answers.dataset.item_counts()
    references = np.argsort(-counts[1:], kind="stable")[: effects.REFERENCES] + 1
    model = Attentive(2, 6)
    others = [model.vectors[6] @ model.query(0, [], [int(code)]) for code in references]
    expected = model.vectors[6] @ model.query(0, [], [4]) - np.mean(others)
    assert answer["effect"].item() == pytest.approx(expected, abs=1e-4)


def test_log_probabilities_have_no_common_shift() -> None:
    answers = shopper()
    answer = answers.explain(1, [10, 60], basket=[40, 50], by="basket", measure="log-probability")
    model = Attentive(2, 6)

    def logs(basket: list[int]) -> np.ndarray:
        scores = (model.vectors @ model.query(1, [[1, 2], [3]], basket))[1:]
        return np.asarray(scores - np.log(np.exp(scores).sum()))

    assert answer.filter(item=60)["score"][0] == pytest.approx(logs([4, 5])[5], abs=1e-4)
    for item, code in ((10, 0), (60, 5)):
        effect = answer.filter(item=item, because=40)["effect"].item()
        assert effect == pytest.approx(logs([4, 5])[code] - logs([5])[code], abs=1e-4)


def test_attention_by_block_and_head() -> None:
    answer = shopper().attention([1, 2], basket=[[40, 50], []])
    assert answer.columns == ["user", "block", "head", "kind", "because", "position", "weight"]
    assert answer.drop("weight").rows() == [
        (1, 1, 1, "basket", 40, 1),
        (1, 1, 1, "basket", 50, 2),
        (1, 1, 2, "basket", 40, 1),
        (1, 1, 2, "basket", 50, 2),
    ]
    assert answer["weight"].to_list() == pytest.approx([1 / 2, 1 / 2, 4 / 9, 5 / 9])


def test_attention_of_a_transformer_covers_the_items_that_it_reads() -> None:
    dataset = random_dataset(5, 30, 9)
    answers = Recommender(segue.SASRec(width=8, heads=2, max_length=4).build(5, 30), dataset)
    answer = answers.attention([1, 2], basket=[[10], [20, 30]])
    sums = answer.group_by("user", "block", "head").agg(pl.col("weight").sum(), pl.len())
    assert len(sums) == 2 * 2 * 2
    assert sums["weight"].to_list() == pytest.approx([1] * 8, abs=1e-5)
    assert set(sums["len"]) == {4}
    assert answer.filter(user=2, block=1, head=1)["kind"].to_list() == ["item", "item", "basket", "basket"]
    newest = int(dataset.lengths[2])
    assert answer.filter(user=2, block=1, head=1)["position"].to_list() == [newest - 1, newest, 1, 2]
    reasons = answers.explain(2, 50, basket=[20, 30], by=["item", "basket"])
    mean = answer.filter(user=2).group_by("kind", "position").agg(pl.col("weight").mean())
    joined = reasons.join(mean, on=["kind", "position"])
    assert len(joined) == 4
    assert joined["attention"].to_list() == pytest.approx(joined["weight"].to_list(), abs=1e-5)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: shopper().explain(1, 60, by="sesion"), "by='sesion'"),
        (lambda: shopper().explain(1, 60, by=[]), "names no kind"),
        (lambda: shopper().explain(1, 60, by="basket"), "needs a session in progress"),
        (lambda: recommender().explain(1, 10, by="session"), "needs histories with sessions"),
        (lambda: recommender().explain(1, 10, by="user"), "answers by the history alone"),
        (lambda: recommender().explain(1, 10, measure="odds"), "measure='odds'"),
        (lambda: recommender().attention(1), "has no attention"),
        (lambda: recommender().attention(), "no users are named"),
    ],
)
def test_impossible_kinds(ask: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ask()


# ---- repeats -------------------------------------------------------------------------------------------------------


def household(days: bool = True) -> Recommender:
    """User 1 took item 10 in three of four baskets, and 20 and 30 once."""
    baskets = [["10", "20"], ["10"], ["10", "10", "30"], ["40"]]
    rows = [
        {"user": "1", "item": item, "session": number, **({"time": 86_400 * 10 * number} if days else {})}
        for number, basket in enumerate(baskets)
        for item in basket
    ]
    rows += [{**row, "user": "2", "session": row["session"] + 10} for row in rows]
    time = "time" if days else False
    data = segue.prepare(pl.DataFrame(rows), session="session", time=time, rating=False, duplicates="keep")
    return segue.fit(segue.PersonalFrequency(decay=0.5), data, quiet=True)


def test_a_counting_model_names_an_item_once_with_its_number_of_baskets() -> None:
    answers = household()
    reasons = answers.explain(1, 10)
    of_item = reasons.filter(because=10).row(0, named=True)
    assert reasons["kind"].unique().to_list() == ["repeats"]
    assert reasons["because"].sort().to_list() == [10, 20, 30, 40]
    assert (of_item["times"], of_item["steps_ago"], of_item["items"]) == (3, 1, 4)
    assert of_item["time_ago"] == 10 * 86_400
    # Without it, the user has only the popularity behind: the counts of its baskets are the effect.
    assert of_item["effect"] == pytest.approx(0.5 + 0.25 + 0.125, abs=1e-6)


def test_the_time_since_the_last_one_counts_up_to_the_moment_of_the_question() -> None:
    answers = household()
    reasons = answers.explain(1, 10, as_of=86_400 * 34)
    assert reasons.filter(because=10)["time_ago"].item() == 14 * 86_400
    single = answers.explain(1, 10, by="item")
    assert "times" not in single.columns
    assert len(single) == 7
    both = answers.explain(1, 10, by=["item", "repeats"])
    assert both.filter(kind="item")["times"].null_count() == 7


def test_repeats_without_times_count_sessions() -> None:
    answers = household(days=False)
    reasons = with_texts(answers.explain(1, 10), answers.dataset)
    assert "time_ago" not in reasons.columns
    assert reasons.filter(because=10)["repeats"].item() == "3 times, last 1 session before the newest"
    assert reasons.columns[-2:] == ["repeats", "effect"]


@pytest.mark.parametrize(
    ("numbers", "unit", "text"),
    [
        ((14, 3, 9 * 86_400), "s", "14 times, last 9 days ago"),
        ((1, 2, 86_400_000), "ms", "once, 1 day ago"),
        ((2, 0, 0), "s", "twice, last in the newest session"),
        ((1_200, 4, 3), None, "1,200 times, last 4 sessions before the newest"),
        ((3, 1, 30), "s", "3 times, last less than a minute ago"),
        ((3, 1, None), None, "3 times, last 1 session before the newest"),
        ((3, 1, 70 * 86_400), "s", "3 times, last 2 months ago"),
    ],
)
def test_repeats_in_words(numbers: tuple[int, int, int | None], unit: str | None, text: str) -> None:
    assert repeat_text(*numbers, unit, "session") == text
