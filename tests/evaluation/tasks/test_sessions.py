from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import log2
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from segue.data.dataset import Dataset
from segue.data.histories import Histories
from segue.data.simulation.simulate import simulate
from segue.data.splits.by_user import Holdout, last_session_out
from segue.errors import ConfigError, DataError, EvaluationError
from segue.evaluation.candidates import Candidates, sample_candidates
from segue.evaluation.compare import compare
from segue.evaluation.resampling import bootstrap_interval
from segue.evaluation.tasks.next_items import evaluate
from segue.evaluation.tasks.result import Evaluation, side_by_side
from segue.evaluation.tasks.sessions import _shuffled, both_ways, evaluate_sessions
from segue.inference.scoring.ranking import distinct
from segue.models.base import ModelConfig
from segue.models.markov import Markov
from segue.models.parsrec.parsrec import PARSRec
from segue.models.popularity import Popularity
from segue.models.sasrec import SASRec
from segue.training.config import Training
from segue.training.fit import fit
from tests.inference.fakes import Fake, Table, TableConfig, dataset

N_ITEMS = 9


class Reader(Fake):
    """Scores that depend on everything a model may read: user, history, basket and its order, and where sessions begin.

    They take few values, so that there are many ties.
    """

    def __init__(self, n_items: int, levels: int, salt: int) -> None:
        super().__init__(TableConfig(), 1_000, n_items)
        self.levels, self.salt = levels, salt

    def queries(self, histories: Histories) -> Tensor:
        assert histories.baskets is not None
        rows = zip(histories.users, histories.starts, histories.baskets, histories.ends, strict=True)
        return torch.stack(
            [
                torch.from_numpy(self.plain_scores(int(user), histories.items[start:cut], histories.items[cut:end]))
                for user, start, cut, end in rows
            ]
        )

    def plain_scores(self, user: int, history: Sequence[int], basket: Sequence[int]) -> np.ndarray:
        """(n_items + 1,) of one user."""
        read = [self.salt, user, *map(int, history), 0, *map(int, basket)]
        return np.random.default_rng(read).integers(0, self.levels, self.n_items + 1).astype(np.float32)

    def score_all(self, queries: Tensor, start: int, stop: int, out: Tensor | None = None) -> Tensor:
        return queries[:, start:stop] if out is None else out.copy_(queries[:, start:stop])

    def score_items(self, queries: Tensor, items: Tensor) -> Tensor:
        return queries.gather(1, items)


def with_sessions(users: Sequence[Sequence[Sequence[int]]], n_items: int = N_ITEMS) -> Dataset:
    """A Dataset of each user's sessions, given as item codes."""
    lengths = [len(session) for sessions in users for session in sessions]
    made = dataset([[item for session in sessions for item in session] for sessions in users], n_items)
    return replace(made, session_offsets=np.concatenate([[0], np.cumsum(lengths)]))


@dataclass
class Step:
    """One prediction, as the slow writing of the protocol finds it."""

    row: int
    number: int
    rank: int


def slowly(
    model: Reader,
    holdout: Holdout,
    order: Histories,
    k: int,
    exclude_seen: bool = False,
    candidates: np.ndarray | None = None,
) -> list[Step]:
    """The protocol, step by step and item by item. `order` holds the items of each session in their seeded order."""
    steps = []
    given = holdout.histories()
    for row, user in enumerate(given.users):
        history = given.items[given.starts[row] : given.ends[row]].tolist()
        remaining = order.items[order.starts[row] : order.ends[row]].tolist()
        basket: list[int] = []
        while remaining:
            scores = model.plain_scores(int(user), history, basket)
            hidden = set(basket) | (set(history) if exclude_seen else set())
            others = range(1, model.n_items + 1) if candidates is None else candidates[row].tolist()
            rivals = [item for item in others if item not in hidden and item not in remaining]
            best, rank = remaining[0], model.n_items + 1
            for item in sorted(set(remaining) - hidden, key=lambda item: (-scores[item], item))[:1]:
                rank = 1 + sum(bool(scores[other] >= scores[item]) for other in rivals)
                best = item if rank <= k else best
            steps.append(Step(row, len(basket) + 1, rank))
            basket.append(best)
            remaining.remove(best)
    return steps


def check(found: Evaluation, steps: Sequence[Step], ks: Sequence[int]) -> None:
    """Every figure of an evaluation against the same from the steps."""
    rows = sorted({step.row for step in steps})
    by_row = [[step for step in steps if step.row == row] for row in rows]
    assert found.per_user["length"].to_list() == [len(mine) for mine in by_row]
    assert found.protocol["targets"] == len(steps)
    for k in ks:
        hits = [[step.rank <= k for step in mine] for mine in by_row]
        gains = [[1 / log2(1 + step.rank) if step.rank <= k else 0.0 for step in mine] for mine in by_row]
        assert found.per_user[f"hits@{k}"].to_list() == [sum(mine) for mine in hits]
        assert found.per_user[f"gain@{k}"].to_list() == pytest.approx([sum(mine) for mine in gains])
        assert found[f"sess_prec@{k}"] == pytest.approx(np.mean([np.mean(mine) for mine in hits]))
        assert found[f"step_hr@{k}"] == pytest.approx(np.mean([hit for mine in hits for hit in mine]))
        assert found[f"step_ndcg@{k}"] == pytest.approx(np.mean([gain for mine in gains for gain in mine]))
        for part in found.by_step.to_dicts():
            number = int(part["step"])
            at = [step for step in steps if step.number == number]
            assert part["steps"] == len(at)
            assert part[f"step_hr@{k}"] == pytest.approx(np.mean([step.rank <= k for step in at]))
            gained = [1 / log2(1 + step.rank) * (step.rank <= k) for step in at]
            assert part[f"step_ndcg@{k}"] == pytest.approx(np.mean(gained))
    assert found.by_step["steps"].sum() == len(steps)


session = st.lists(st.integers(1, N_ITEMS - 3), min_size=1, max_size=6)
users = st.lists(st.lists(session, min_size=3, max_size=4), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(
    users,
    st.integers(1, 4),
    st.integers(0, 99),
    st.sets(st.integers(1, 4), min_size=1),
    st.booleans(),
    st.sampled_from([None, 1, 3]),
)
def test_every_figure_equals_the_slow_writing(
    rows: list, levels: int, seed: int, ks: set[int], exclude_seen: bool, candidates: int | None
) -> None:
    """With ties, items twice in a session, items in history and session, several k, and sampled candidates."""
    holdout = last_session_out(with_sessions(rows)).test
    ks = ks if candidates is None else {k for k in ks if k <= candidates} or {1}
    model = Reader(N_ITEMS, levels, seed)
    drawn = None
    if candidates is not None:
        drawn = sample_candidates(holdout, candidates, seed=seed, from_history=not exclude_seen)
    found = evaluate_sessions(
        model, holdout, k=tuple(ks), candidates=candidates, exclude_seen=exclude_seen, seed=seed, resamples=0
    )
    order = _shuffled(distinct(holdout.targets())[0], seed)
    steps = slowly(model, holdout, order, max(ks), exclude_seen, None if drawn is None else drawn.codes)
    check(found, steps, sorted(ks))
    assert found.intervals == {}


@settings(max_examples=30, deadline=None)
@given(users, st.integers(0, 99))
def test_the_order_of_a_session_is_drawn_once_and_holds_each_item_once(rows: list, seed: int) -> None:
    holdout = last_session_out(with_sessions(rows)).test
    order = _shuffled(distinct(holdout.targets())[0], seed)
    for row, sessions in enumerate(rows):
        mine = order.items[order.starts[row] : order.ends[row]].tolist()
        assert len(mine) == len(set(mine))
        assert set(mine) == set(sessions[-1])


def test_the_order_on_a_miss_is_random() -> None:
    """A model that never hits is asked from baskets whose first item is each of the session's equally often."""
    holdout = last_session_out(with_sessions([[[1], [2], [3, 4, 5]]] * 3_000)).test
    order = _shuffled(distinct(holdout.targets())[0], 0)
    counts = np.bincount(order.items[order.starts], minlength=6)[3:]
    assert np.abs(counts - 1_000).max() < 5 * np.sqrt(1_000)


# ---- by hand -------------------------------------------------------------------------------------------------------


class Basket(Table):
    """Scores by what was last put into the basket; by item 0 while it is empty."""

    def queries(self, histories: Histories) -> Tensor:
        assert histories.baskets is not None
        last = histories.items[np.maximum(histories.ends - 1, 0)]
        return torch.from_numpy(np.where(histories.ends > histories.baskets, last, 0).astype(np.int64))


def test_a_tiny_case_by_hand() -> None:
    """One session {5, 6, 7}; the model looks only at the basket.

    Empty: 5 stands behind 1 (rank 2), a hit at k = 2. Then 6 ties with 1 and stands behind it and 2: rank 3, a miss at
    2. Then the item that joins depends on the order; from either basket what remains stands first.
    """
    table = np.zeros((10, 10), dtype=np.float32)
    table[0, [1, 5]] = [9, 8]
    table[5, [1, 2, 6]] = [4, 5, 4]
    table[6, 7] = table[7, 6] = 1
    holdout = last_session_out(with_sessions([[[1, 2], [3], [5, 6, 7, 6]]])).test
    found = evaluate_sessions(Basket(table), holdout, k=(1, 2))
    assert found["sess_prec@2"] == found["step_hr@2"] == pytest.approx(2 / 3)
    assert found["sess_prec@1"] == pytest.approx(1 / 3)
    assert found["step_ndcg@2"] == pytest.approx((1 / log2(3) + 0 + 1) / 3)
    assert found["step_ndcg@1"] == pytest.approx(1 / 3)
    assert found.by_step["step"].to_list() == ["1", "2", "3"]
    assert found.by_step["step_hr@1"].to_list() == [0.0, 0.0, 1.0]
    assert found.by_step["step_ndcg@2"].to_list() == pytest.approx([1 / log2(3), 0.0, 1.0])
    assert found.per_user.columns == ["user", "history", "length", "hits@1", "hits@2", "gain@1", "gain@2"]
    assert found.per_user.rows() == [(1, 3, 3, 1, 2, 1.0, pytest.approx(1 + 1 / log2(3)))]
    wider = evaluate_sessions(Basket(table), holdout, k=3)
    assert wider["sess_prec@3"] == 1.0, "at k = 3 item 6 joins in its turn, and 7 follows"


def test_an_item_of_the_history_may_be_found_again_unless_seen_items_are_left_out() -> None:
    table = np.zeros((2, 10), dtype=np.float32)
    table[1, [4, 8]] = [2, 1]
    holdout = last_session_out(with_sessions([[[4], [2], [4, 8]]])).test
    assert evaluate_sessions(Table(table), holdout, k=1)["sess_prec@1"] == 1.0
    found = evaluate_sessions(Table(table), holdout, k=(1, 9), exclude_seen=True)
    assert found["sess_prec@1"] == found["sess_prec@9"] == 0.5, "item 8 is found, and item 4 cannot be"


def test_steps_beyond_the_tenth_are_taken_together() -> None:
    holdout = last_session_out(with_sessions([[[1], [2], list(range(1, 31))]], 40)).test
    model = Table(np.zeros((2, 41)))
    found = evaluate_sessions(model, holdout, k=3, resamples=0).by_step
    assert found["step"].to_list() == [*map(str, range(1, 11)), "11–20", "21–50"]
    assert found["steps"].to_list() == [1] * 10 + [10, 10]


# ---- models --------------------------------------------------------------------------------------------------------

MADE = last_session_out(simulate(120, 6, categories=8, products=6, price_effect=0.1, longest=6, seed=3).dataset())


class Oracle(Reader):
    """Knows what is in the session of each user."""

    def __init__(self, holdout: Holdout) -> None:
        super().__init__(holdout.dataset.n_items, 1, 0)
        self.table = np.zeros((holdout.dataset.n_users + 1, self.n_items + 1), dtype=np.float32)
        rows, items = holdout.targets().seen()
        self.table[holdout.users[rows], items] = 1.0

    def plain_scores(self, user: int, history: Sequence[int], basket: Sequence[int]) -> np.ndarray:
        return self.table[user]


@pytest.mark.parametrize("candidates", [None, 20])
def test_a_perfect_model_completes_every_session(candidates: int | None) -> None:
    found = evaluate_sessions(Oracle(MADE.test), MADE.test, k=(1, 10), candidates=candidates)
    assert set(found.metrics.values()) == {1.0}
    assert set(found.intervals.values()) == {(1.0, 1.0)}


@pytest.mark.parametrize("candidates", [None, 20])
def test_a_constant_model_hits_nothing(candidates: int | None) -> None:
    model = Table(np.zeros((MADE.dataset.n_users + 1, MADE.dataset.n_items + 1)))
    assert set(evaluate_sessions(model, MADE.test, candidates=candidates).metrics.values()) == {0.0}


CONFIGS: list[ModelConfig] = [
    Popularity(),
    Markov(),
    SASRec(width=8, blocks=1, max_length=20),
    PARSRec(user_width=4, item_width=8),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_models_are_asked_whether_they_know_of_sessions_or_not(config: ModelConfig) -> None:
    fitted = fit(config, MADE, training=Training(epochs=1, cpu=True), quiet=True)
    before = MADE.dataset.items.copy()
    ways = both_ways(fitted, MADE.test, k=(5, 10), candidates=20)
    np.testing.assert_array_equal(MADE.dataset.items, before)
    for found in ways.values():
        assert 0 < found["sess_prec@5"] < found["sess_prec@10"] < 1
        assert found["step_ndcg@10"] < found["step_hr@10"]
        low, high = found.intervals["step_hr@10"]
        assert low < found["step_hr@10"] < high
    assert ways["all"]["step_hr@10"] < ways["sampled"]["step_hr@10"]
    again = both_ways(fitted, MADE.test, k=(5, 10), candidates=20)
    assert [found.to_dict() for found in again.values()] == [found.to_dict() for found in ways.values()]


class Last(Table):
    """Scores by the last item of history and basket together, as a model does that knows nothing of sessions."""

    def queries(self, histories: Histories) -> Tensor:
        return torch.from_numpy(histories.items[histories.ends - 1].astype(np.int64))


def test_what_joins_the_basket_is_read_at_the_next_step() -> None:
    """Items stand in a circle, and a session is an arc of it: once one item is there, a neighbour is easy to find."""
    n, size = 40, 5
    circle = np.zeros((n + 1, n + 1), dtype=np.float32)
    here = np.arange(n)
    circle[here + 1, (here + 1) % n + 1] = 1.0
    circle[here + 1, (here - 1) % n + 1] = 0.5
    rows = [[[1 + 7 * user % n], [1 + (user + 20) % n], [1 + (user + i) % n for i in range(size)]] for user in range(n)]
    found = evaluate_sessions(Last(circle), last_session_out(with_sessions(rows, n)).test, k=2, resamples=0)
    assert found.by_step["step_hr@2"][0] == 0.0
    assert (found.by_step["step_hr@2"][1:-1] > 0.5).all()


# ---- the evaluation as an object -----------------------------------------------------------------------------------


def table(seed: int) -> Table:
    """Random scores for the users of `MADE`."""
    shape = (MADE.dataset.n_users + 1, MADE.dataset.n_items + 1)
    return Table(np.random.default_rng(seed).standard_normal(shape))


def test_it_says_what_was_asked() -> None:
    found = evaluate_sessions(table(1), MADE.test, k=(5, 10))
    assert found.remarks.startswith("test: 120 sessions completed step by step, ")
    assert found.remarks.endswith(f"steps among all {MADE.dataset.n_items} items, seen items kept")
    assert found.protocol["basket_k"] == 10
    shown = str(found)
    for text in ("table · test", "sess_prec", "step_hr", "step_ndcg", "@5", "@10"):
        assert text in shown
    sampled = evaluate_sessions(table(1), MADE.test, candidates=20, by="popularity")
    assert sampled.candidates == "20 items sampled by popularity"
    both = side_by_side({"one": found, "other": sampled})
    assert both.row_count == 3, "the metrics at 10, which both have"


def test_parts_that_are_not_there_are_an_error() -> None:
    with pytest.raises(EvaluationError, match="not divided by popularity, only by history_length, step"):
        _ = evaluate_sessions(table(1), MADE.test).by_popularity
    with pytest.raises(EvaluationError, match="not divided by step"):
        _ = evaluate(table(1), MADE.test).by_step


def test_save_and_load(tmp_path: Path) -> None:
    found = evaluate_sessions(table(1), MADE.test, k=(5, 10))
    main = replace(evaluate(table(1), MADE.test), sessions=both_ways(table(1), MADE.test, candidates=20))
    for one in (found, main):
        again = Evaluation.load(one.save(tmp_path / "found.json"))
        assert again.to_dict() == one.to_dict()
        assert str(again) == str(one)
        assert again.per_user.equals(one.per_user)
        for way, inner in one.sessions.items():
            assert again.sessions[way].per_user.equals(inner.per_user)
            assert again.sessions[way].by_step.equals(inner.by_step)
    assert list(again.sessions) == ["all", "sampled"]
    assert compare(again, main)["ndcg@10"].difference == 0.0


def test_two_models_are_compared_session_by_session() -> None:
    good, bad = Oracle(MADE.test), table(1)
    a, b = (evaluate_sessions(model, MADE.test, k=(1, 10)) for model in (bad, good))
    found = compare(a, b)
    assert [row.metric for row in found.differences] == list(a.metrics)
    assert (found.unit, found.users) == ("sessions", 120)
    for row in found.differences:
        assert row.a == pytest.approx(a[row.metric])
        assert row.b == pytest.approx(b[row.metric]) == 1.0
        assert 0 < row.low < row.difference < row.high
        assert row.p_value < 0.001
    shuffled = replace(b, per_user=b.per_user.sample(fraction=1.0, shuffle=True, seed=3))
    noisy = evaluate_sessions(table(2), MADE.test, k=(1, 10))
    mixed = replace(noisy, per_user=noisy.per_user.sample(fraction=1.0, shuffle=True, seed=3))
    assert compare(a, shuffled).to_dict() == found.to_dict()
    assert compare(a, mixed).to_dict() == compare(a, noisy).to_dict()


def test_sessions_of_two_evaluations_are_compared_with_them() -> None:
    a, b = (
        replace(evaluate(table(seed), MADE.test), sessions=both_ways(table(seed), MADE.test, candidates=20))
        for seed in (1, 2)
    )
    found = compare(a, b, metric=["hr@10", "sess_prec@10"])
    assert [row.metric for row in found.differences] == ["hr@10"]
    assert {way: [row.metric for row in one.differences] for way, one in found.sessions.items()} == {
        "all": ["sess_prec@10"],
        "sampled": ["sess_prec@10"],
    }
    assert found.sessions["sampled"].candidates == "20 sampled items"
    alone = compare(a.sessions["all"], b.sessions["all"], metric="sess_prec@10")
    assert found.sessions["all"].to_dict() == alone.to_dict() == found.to_dict()["sessions"]["all"]
    assert "120 sessions, among 20 sampled items" in str(found.sessions["sampled"])
    with pytest.raises(ConfigError, match='did you mean "sess_prec@10"'):
        compare(a, b, metric="sess_perc@10")


def test_what_was_asked_otherwise_is_not_compared() -> None:
    a = evaluate_sessions(table(1), MADE.test)
    with pytest.raises(EvaluationError, match="basket_k is 10 in one and 20 in the other"):
        compare(a, evaluate_sessions(table(1), MADE.test, k=(10, 20)))
    with pytest.raises(EvaluationError, match="questions is "):
        compare(a, evaluate_sessions(table(1), MADE.test, seed=1))
    with pytest.raises(EvaluationError, match="candidates is 'all' in one and 20 in the other"):
        compare(a, evaluate_sessions(table(1), MADE.test, candidates=20))
    with pytest.raises(EvaluationError, match="basket_k is 10 in one and None in the other"):
        compare(a, evaluate(table(1), MADE.test, exclude_seen=False))
    with pytest.raises(EvaluationError, match="exclude_seen is False in one and True in the other"):
        compare(a, evaluate_sessions(table(1), MADE.test, exclude_seen=True))


def test_intervals_know_that_steps_of_one_session_go_together() -> None:
    """Against the delta method for a ratio of means; a bootstrap of single steps would be much too narrow."""
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, 30, 800).astype(float)
    for sums in (lengths * generator.integers(0, 2, 800), lengths * generator.random(800)):
        low, high = bootstrap_interval(sums, 4_000, per=lengths)
        ratio = sums.sum() / lengths.sum()
        error = np.std(sums - ratio * lengths) / lengths.mean() / np.sqrt(len(sums))
        assert (low, high) == pytest.approx((ratio - 1.96 * error, ratio + 1.96 * error), abs=error / 6)
    few = generator.integers(1, 4, 800).astype(float)
    low, high = bootstrap_interval(few * (few > 1), 4_000, per=few)
    assert low < (few * (few > 1)).sum() / few.sum() < high


def test_parts_by_length_of_history_add_up() -> None:
    found = evaluate_sessions(table(1), MADE.test)
    lengths = found.per_user["history"].to_numpy()
    for part in found.by_history_length.to_dicts():
        low, high = map(int, part["history"].split("–"))
        mine = found.per_user.filter((lengths >= low) & (lengths <= high))
        assert part["users"] == len(mine)
        assert part["step_hr@10"] == pytest.approx(mine["hits@10"].sum() / mine["length"].sum())
        assert part["sess_prec@10"] == pytest.approx((mine["hits@10"] / mine["length"]).mean())


# ---- options -------------------------------------------------------------------------------------------------------


def test_candidates_drawn_before_give_the_same_figures() -> None:
    drawn = sample_candidates(MADE.test, 25, seed=4, from_history=True)
    once, again = (evaluate_sessions(table(1), MADE.test, candidates=given, seed=4) for given in (drawn, 25))
    assert once.to_dict() == again.to_dict()
    part = evaluate_sessions(table(1), MADE.test, candidates=drawn, users=40)
    assert len(part.per_user) == part.protocol["users"] == 40


def test_a_candidate_that_is_in_the_session_counts_for_nothing() -> None:
    table = np.zeros((2, 10), dtype=np.float32)
    table[1, [4, 8, 9]] = [2, 2, 1]
    holdout = last_session_out(with_sessions([[[1], [2], [4, 8]]])).test
    drawn = Candidates(holdout.users, np.array([[4, 8, 9]]), "uniform", 0)
    assert evaluate_sessions(Table(table), holdout, k=1, candidates=drawn)["sess_prec@1"] == 1.0


def test_both_ways_take_what_the_catalogue_has() -> None:
    longest = int(distinct(MADE.test.targets())[0].lengths.max())
    assert both_ways(table(1), MADE.test)["sampled"].protocol["candidates"] == MADE.dataset.n_items - longest
    assert list(both_ways(table(1), MADE.test, k=MADE.dataset.n_items - longest)) == ["all"]
    with pytest.raises(DataError, match="fewer items are left"):
        both_ways(table(1), MADE.test, candidates=MADE.dataset.n_items)


def test_impossible_options_are_explained() -> None:
    with pytest.raises(ConfigError, match="k=0: expected a whole number from 1"):
        evaluate_sessions(table(1), MADE.test, k=0)
    with pytest.raises(ConfigError, match="k is 10, but each target is ranked among 5 candidates"):
        evaluate_sessions(table(1), MADE.test, candidates=5)
    with pytest.raises(ConfigError, match="users=0: expected 1 or more, or None"):
        evaluate_sessions(table(1), MADE.test, users=0)
    with pytest.raises(EvaluationError, match="fitted on another Dataset"):
        evaluate_sessions(Table(np.zeros((5, 50))), MADE.test)
    with pytest.raises(EvaluationError, match="no users"):
        evaluate_sessions(table(1), MADE.test.select(np.zeros(0, dtype=np.int64)))
    broken = table(1)
    broken.table[:] = np.nan
    with pytest.raises(EvaluationError, match="scores are not finite"):
        evaluate_sessions(broken, MADE.test)
