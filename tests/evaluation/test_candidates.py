from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.data.splits.by_user import leave_last_n, leave_last_out
from segue.errors import ConfigError, DataError, EvaluationError, StorageError
from segue.evaluation.candidates import Candidates, most_candidates, sample_candidates
from tests import programs
from tests.helpers import cycle_dataset
from tests.inference.fakes import dataset, random_dataset

histories = st.lists(st.lists(st.integers(1, 12), min_size=3, max_size=8), min_size=1, max_size=8)


@settings(max_examples=80, deadline=None)
@given(histories, st.integers(0, 12), st.integers(0, 3), st.sampled_from(["uniform", "popularity"]), st.booleans())
def test_candidates_are_distinct_and_never_a_users_own(
    rows: list, spare: int, seed: int, by: str, from_history: bool
) -> None:
    holdout = leave_last_out(dataset(rows, 24)).test
    counts = holdout.training_view().item_counts()
    drawable = [
        {item for item in range(1, 25) if by == "uniform" or counts[item]}
        - set(rows[user - 1][-1:] if from_history else rows[user - 1])
        for user in holdout.users
    ]
    most = min(map(len, drawable))
    options = {"by": by, "seed": seed, "from_history": from_history}
    assert most_candidates(holdout, by=by, from_history=from_history) == most  # type: ignore[arg-type]
    n = most - spare
    if n < 1:
        with pytest.raises(DataError, match="ask for"):
            sample_candidates(holdout, most + 1, **options)  # type: ignore[arg-type]
        return
    drawn = sample_candidates(holdout, n, **options)  # type: ignore[arg-type]
    assert drawn.codes.shape == (len(holdout), n)
    for row, allowed in zip(drawn.codes, drawable, strict=True):
        assert len(set(row)) == n
        assert set(row) <= allowed
    again = sample_candidates(holdout, n, **options)  # type: ignore[arg-type]
    np.testing.assert_array_equal(drawn.codes, again.codes)


def test_targets_are_never_candidates() -> None:
    holdout = leave_last_n(random_dataset(60, 40, 12), 2).validation
    drawn = sample_candidates(holdout, 20)
    targets = holdout.targets()
    for row in range(len(holdout)):
        assert not set(drawn.codes[row]) & set(targets.items[targets.starts[row] : targets.ends[row]].tolist())


@pytest.mark.parametrize("n", [5, 12])
def test_uniform_draws_are_uniform(n: int) -> None:
    """With few and with many of the 17 items that are left (the two ways of drawing)."""
    holdout = leave_last_out(dataset([[4, 9, 20]] * 6_000, 20)).test
    counts = np.bincount(sample_candidates(holdout, n).codes.ravel(), minlength=21)
    assert not counts[[0, 4, 9, 20]].any()
    expected = 6_000 * n / 17
    left = np.delete(counts, [0, 4, 9, 20])
    assert np.abs(left - expected).max() < 5 * np.sqrt(expected)


@pytest.mark.parametrize(("n", "n_rare"), [(1, 1), (2, 0)])
def test_popular_items_are_drawn_in_proportion(n: int, n_rare: int) -> None:
    """Items 1, 2 and 3 have weights 6, 3 and 1; one draw is checked, and the two-draw law of the random keys."""
    tastes = [[1, 4, 5]] * 600 + [[2, 4, 5]] * 300 + [[3, 4, 5]] * 100
    data = dataset([*([[6, 6, 4, 5]] * 4_000), *tastes], 6)
    holdout = leave_last_out(data).test.select(np.arange(4_000))
    weights = holdout.training_view().item_counts()
    assert (weights[[1, 2, 3]] == [600, 300, 100]).all()
    drawn = sample_candidates(holdout, n, by="popularity").codes
    shares = np.array([(drawn == item).any(axis=1).mean() for item in (1, 2, 3)])
    one = np.array([0.6, 0.3, 0.1])
    both = one + np.array([sum(one[j] * one[i] / (1 - one[j]) for j in range(3) if j != i) for i in range(3)])
    np.testing.assert_allclose(shares, one if n_rare else both, atol=0.035)


def test_the_same_seed_gives_the_same_candidates_in_another_process() -> None:
    code = (
        "from segue.data.splits.by_user import leave_last_out\n"
        "from segue.evaluation.candidates import sample_candidates\n"
        "from tests.helpers import cycle_dataset\n"
        "holdout = leave_last_out(cycle_dataset(40, 80, 10)).test\n"
        "print(sample_candidates(holdout, 30, by='popularity', seed=5).codes.tolist())"
    )
    root = Path(__file__).parents[2]
    out = programs.run("-c", code, cwd=root).stdout
    holdout = leave_last_out(cycle_dataset(40, 80, 10)).test
    assert out.strip() == str(sample_candidates(holdout, 30, by="popularity", seed=5).codes.tolist())


def test_another_seed_gives_other_candidates() -> None:
    holdout = leave_last_out(random_dataset(40, 80, 10)).test
    assert (sample_candidates(holdout, 30, seed=1).codes != sample_candidates(holdout, 30, seed=2).codes).any()


def test_items_of_the_history_are_drawn_where_they_are_asked_for() -> None:
    holdout = leave_last_out(dataset([[4, 9, 20]] * 6_000, 20)).test
    counts = np.bincount(sample_candidates(holdout, 5, from_history=True).codes.ravel(), minlength=21)
    assert not counts[[0, 20]].any()
    expected = 6_000 * 5 / 19
    assert np.abs(counts[1:20] - expected).max() < 5 * np.sqrt(expected)


def test_too_many_candidates_say_how_many_there_are() -> None:
    holdout = leave_last_out(dataset([[1, 2, 3], [1, 1, 1]], 6)).test
    with pytest.raises(DataError, match=r"for 1 of 2 users fewer items .* only 3: ask for 3 or fewer"):
        sample_candidates(holdout, 4)
    assert sample_candidates(holdout, 3).codes[0].tolist() == [4, 5, 6]


def test_impossible_options_are_explained() -> None:
    holdout = leave_last_out(dataset([[1, 2, 3]], 6)).test
    with pytest.raises(ConfigError, match="expected 1 or more"):
        sample_candidates(holdout, 0)
    with pytest.raises(ConfigError, match='"uniform" or by "popularity"'):
        sample_candidates(holdout, 1, by="rank")  # type: ignore[arg-type]


def test_save_and_load(tmp_path: Path) -> None:
    holdout = leave_last_out(random_dataset(40, 80, 10)).test
    drawn = sample_candidates(holdout, 7, by="popularity", seed=3)
    found = Candidates.load(drawn.save(tmp_path / "candidates.npz"))
    np.testing.assert_array_equal(found.codes, drawn.codes)
    np.testing.assert_array_equal(found.users, drawn.users)
    assert (found.by, found.seed, found.n) == ("popularity", 3, 7)
    assert found.codes.dtype == np.int64


def test_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="is missing"):
        Candidates.load(tmp_path / "none.npz")
    damaged = tmp_path / "damaged.npz"
    damaged.write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(StorageError, match=r"damaged\.npz does not hold candidates"):
        Candidates.load(damaged)
    np.savez(tmp_path / "other.npz", codes=np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(StorageError, match="does not hold candidates"):
        Candidates.load(tmp_path / "other.npz")


def test_rows_can_be_looked_up_by_user() -> None:
    drawn = sample_candidates(leave_last_out(random_dataset(40, 80, 10)).test, 7)
    np.testing.assert_array_equal(drawn.of(drawn.users[[3, 8]]).codes, drawn.codes[[3, 8]])
    with pytest.raises(EvaluationError, match="1 of 2 users have no candidates"):
        drawn.of(np.array([1, 41]))
