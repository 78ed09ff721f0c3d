from __future__ import annotations

import ir_measures
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_measures import RR, Success, nDCG

import segue
from segue.data.splits.by_user import Holdout, leave_last_n, leave_last_out
from segue.errors import ColumnError, ConfigError, EvaluationError, UnknownIdError
from segue.evaluation.lists import evaluate_lists
from segue.evaluation.tasks.next_items import evaluate
from segue.inference.scoring.ranking import top_k
from tests.helpers import make_dataset
from tests.inference.fakes import Table, random_dataset

N_USERS, N_ITEMS = 80, 50
SCORES = np.random.default_rng(1).standard_normal((N_USERS + 1, N_ITEMS + 1)).astype(np.float32)
TEST = leave_last_out(make_dataset([[1, 2, 3, 4], [5, 6, 7, 8]], catalogue=range(1, 13))).test


def frame(*rows: tuple[object, object, object]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["user", "item", "rank"], orient="row")


def lists_of(model: Table, holdout: Holdout, k: int) -> pl.DataFrame:
    """A model's lists, row by row."""
    codes, _ = top_k(model, holdout.histories(), k)
    data = holdout.dataset
    return frame(
        *(
            (data.users.decode([user])[0], data.catalogue.decode([item])[0], rank)
            for user, row in zip(holdout.users, codes, strict=True)
            for rank, item in enumerate(row, 1)
            if item
        )
    )


@pytest.mark.parametrize("last", [1, 3])
def test_a_models_own_lists_are_measured_as_the_model_is(last: int) -> None:
    test = leave_last_n(random_dataset(N_USERS, N_ITEMS, 15), last).test
    model = Table(SCORES)
    listed = lists_of(model, test, 10).sample(fraction=1.0, shuffle=True, seed=3)
    ours, theirs = evaluate(model, test, k=(3, 10)), evaluate_lists(listed, test, k=(3, 10))
    assert theirs.metrics == pytest.approx(dict(ours.metrics))
    assert theirs.intervals == ours.intervals
    within = ours.per_user["rank"].to_numpy() <= 10
    assert within.any()
    assert (theirs.per_user["rank"].to_numpy()[within] == ours.per_user["rank"].to_numpy()[within]).all()
    assert theirs.protocol["questions"] == ours.protocol["questions"]
    assert theirs.by_history_length.equals(ours.by_history_length)
    assert theirs.model == "lists"
    shallow = evaluate_lists(lists_of(model, test, 3), test, k=(3,))
    assert segue.compare(shallow, evaluate_lists(listed, test, k=(3,)))["ndcg@3"].difference == 0


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_figures_equal_ir_measures_on_any_lists(data: st.DataObject) -> None:
    users, n_items = data.draw(st.integers(1, 6)), 12
    histories = [
        data.draw(st.lists(st.integers(1, n_items), min_size=3, max_size=6, unique=True)) for _ in range(users)
    ]
    test = leave_last_out(make_dataset(histories, catalogue=range(1, n_items + 1))).test
    rows, qrels, run = [], {}, {}
    for user, history in enumerate(histories, 1):
        unseen = [item for item in range(1, n_items + 1) if item not in history[:-1]]
        listed = data.draw(st.lists(st.sampled_from(unseen), max_size=5, unique=True))
        rows += [(user, item, rank) for rank, item in enumerate(listed, 1)]
        qrels[str(user)] = {str(history[-1]): 1}
        run[str(user)] = {str(item): -float(rank) for rank, item in enumerate(listed, 1)}
    lists = pl.DataFrame(rows, schema={"user": pl.Int64, "item": pl.Int64, "rank": pl.Int64}, orient="row")
    found = evaluate_lists(lists, test, k=(2, 4), resamples=0)
    for k in (2, 4):
        wanted = {"ndcg": nDCG @ k, "hr": Success @ k, "mrr": RR @ k}
        theirs = ir_measures.calc_aggregate(wanted.values(), qrels, run)
        for name, measure in wanted.items():
            assert found[f"{name}@{k}"] == pytest.approx(theirs.get(measure, 0.0), abs=1e-12)


def test_users_without_lists_are_missed_and_others_do_not_count() -> None:
    found = evaluate_lists(frame((1, 9, 1), (1, 4, 2), (77, 9, 1)), TEST)
    assert found["hr@10"] == 0.5
    assert found["ndcg@10"] == pytest.approx(1 / np.log2(3) / 2)
    assert found.per_user["rank"].to_list() == [2, 13]
    assert found["coverage@10"] == pytest.approx(2 / 12)


def test_ranks_count_as_they_are_given() -> None:
    assert evaluate_lists(frame((1, 4, 3), (2, 8, 11)), TEST, k=9)["hr@9"] == 0.5
    assert evaluate_lists(frame((1, 4, 3)).to_pandas(), TEST, k=2)["hr@2"] == 0.0


@pytest.mark.parametrize(
    ("lists", "error", "message"),
    [
        (frame((1, 4, 1)).drop("rank"), ColumnError, 'no column "rank"'),
        (frame((1, 4, 0)), EvaluationError, "from 1"),
        (frame((1, 4, 1.5)), EvaluationError, "whole numbers"),
        (frame((1, 4, 1), (1, 5, 1)), EvaluationError, "user 1 has two items at rank 1"),
        (frame((1, 4, 1), (1, 4, 2)), EvaluationError, "user 1 has twice"),
        (frame((1, 4, 1), (2, 6, 2)), EvaluationError, "such as 6 of user 2"),
        (frame((1, 44, 1)), UnknownIdError, "unknown item: 44"),
    ],
)
def test_impossible_lists_are_errors(lists: pl.DataFrame, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        evaluate_lists(lists, TEST)


def test_seen_items_may_be_kept_and_k_is_checked() -> None:
    assert evaluate_lists(frame((1, 1, 1), (1, 4, 2)), TEST, k=9, exclude_seen=False)["mrr@9"] == 0.25
    with pytest.raises(ConfigError, match="10"):
        evaluate_lists(frame((1, 4, 1)), TEST, k=10_000)


def of_text_users() -> Holdout:
    users = {"01": [1, 2, 3, 4], "02": [5, 6, 7, 8], "10": [1, 5, 3, 8]}
    return leave_last_out(make_dataset(users, catalogue=range(1, 13))).test


@pytest.mark.parametrize("users", [[1, 2], [1, 10], [1.0, 2.0], ["1", "2"], ["u1", "u2"]])
def test_users_that_are_written_in_another_way_are_an_error(users: list[object]) -> None:
    lists = pl.DataFrame({"user": users, "item": [4, 8], "rank": [1, 1]})
    with pytest.raises(UnknownIdError, match=r"not in the Dataset, such as .*look like '01', '02', '10'.*same way"):
        evaluate_lists(lists, of_text_users())


def test_users_are_matched_by_their_ids() -> None:
    lists = pl.DataFrame({"user": ["01", "10"], "item": [4, 8], "rank": [1, 1]})
    assert evaluate_lists(lists, of_text_users())["hr@10"] == pytest.approx(2 / 3)
    assert evaluate_lists(frame((1, 4, 1)).with_columns(user=pl.lit("1")), TEST)["hr@10"] == 0.5


def test_users_of_nobody_are_an_error_and_single_ones_a_warning() -> None:
    with pytest.raises(UnknownIdError, match="2 users of the lists are not in the Dataset, such as 7, 8"):
        evaluate_lists(frame((7, 4, 1), (8, 4, 1)), TEST)
    with pytest.warns(UserWarning, match="not in the Dataset do not count: 1, such as 77"):
        evaluate_lists(frame((1, 4, 1), (77, 9, 1)), TEST)
    with pytest.raises(ColumnError, match="expected a frame"):
        evaluate_lists({"user": [1]}, TEST)
