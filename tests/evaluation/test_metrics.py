from __future__ import annotations

import ir_measures
import numpy as np
import pytest
from ir_measures import AP, RR, P, R, Success, nDCG

from segue.data.histories import Histories
from segue.data.ragged import offsets_of
from segue.evaluation.metrics import coverage, gini, novelty, user_metrics
from segue.inference.scoring.ranking import target_ranks
from tests.inference.fakes import Table

KS = (1, 3, 10)
THEIRS = {"hr": Success, "ndcg": nDCG, "recall": R, "precision": P, "map": AP, "mrr": RR}


@pytest.mark.parametrize("n_targets", [1, 4])
@pytest.mark.parametrize("seed", range(3))
def test_metrics_equal_ir_measures_on_runs_with_ties(n_targets: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    users, n_items = 25, 30
    table = generator.integers(0, 6, (users + 1, n_items + 1)).astype(np.float32)
    codes = np.arange(1, users + 1)
    seen = generator.integers(1, n_items + 1, users)
    lengths = generator.integers(1, n_targets + 1, users)
    order = generator.permuted(np.tile(np.arange(1, n_items + 1), (users, 1)), axis=1)
    targets = [row[row != own][:n] for row, own, n in zip(order, seen, lengths, strict=True)]
    histories = Histories.from_lists(seen[:, None], codes)
    ranks = target_ranks(Table(table), histories, Histories.from_lists(targets, codes))
    ours = user_metrics(ranks, lengths, KS)

    qrels = {str(u): dict.fromkeys(map(str, targets[u]), 1) for u in range(users)}
    run = {str(u): run_of(table[u + 1], targets[u], seen[u]) for u in range(users)}
    measures = {f"{name}@{k}": theirs @ k for name, theirs in THEIRS.items() for k in KS}
    wanted = {measure: name for name, measure in measures.items()}
    found = 0
    for value in ir_measures.iter_calc(list(wanted), qrels, run):
        assert ours[wanted[value.measure]][int(value.query_id)] == pytest.approx(value.value, abs=1e-9)
        found += 1
    assert found == users * len(ours)


def run_of(scores: np.ndarray, targets: np.ndarray, seen: int) -> dict[str, float]:
    """A run without ties that follows our rule: among equal scores, targets behind the others, then by code."""
    items = [item for item in range(1, len(scores)) if item != seen]
    ranked = sorted(items, key=lambda item: (-scores[item], item in targets, item))
    return {str(item): float(len(ranked) - place) for place, item in enumerate(ranked)}


def test_known_answers() -> None:
    found = user_metrics(np.array([2, 30, 1, 3]), np.array([2, 1, 1]), [2, 3])
    assert found["hr@2"].tolist() == [1, 1, 0]
    assert found["recall@2"].tolist() == [0.5, 1, 0]
    assert found["precision@2"].tolist() == [0.5, 0.5, 0]
    assert found["mrr@3"] == pytest.approx([1 / 2, 1, 1 / 3])
    assert found["map@3"] == pytest.approx([0.25, 1, 1 / 3])
    assert found["ndcg@3"] == pytest.approx([(1 / np.log2(3)) / (1 + 1 / np.log2(3)), 1, 0.5])


def test_lists_over_the_whole_catalogue_and_on_one_item() -> None:
    even, single = np.arange(1, 7).reshape(3, 2), np.full((4, 1), 3)
    assert coverage(even, 6) == 1.0
    assert gini(even, 6) == pytest.approx(0.0)
    assert coverage(single, 6) == pytest.approx(1 / 6)
    assert gini(single, 6) == pytest.approx(5 / 6)
    assert gini(np.zeros((2, 2), dtype=np.int64), 6) == 0.0


def test_gini_equals_the_mean_absolute_difference() -> None:
    items = np.random.default_rng(0).integers(0, 8, (20, 3))
    counts = np.bincount(items.ravel(), minlength=8)[1:]
    expected = np.abs(counts[:, None] - counts).sum() / (2 * 7 * counts.sum())
    assert gini(items, 7) == pytest.approx(expected)


def test_novelty_is_self_information_in_bits() -> None:
    counts = np.array([0, 4, 2, 1, 1, 0])
    assert novelty(np.array([[1, 2], [3, 0], [5, 4], [0, 0]]), counts).tolist() == [1.5, 3.0, 3.0, 0.0]


def test_the_figures_of_a_user_do_not_depend_on_the_others() -> None:
    lengths = np.array([1, 3, 2])
    ranks = np.array([4, 9, 1, 5, 2, 7])
    together = user_metrics(ranks, lengths, [5])
    offsets = offsets_of(lengths)
    for row in range(3):
        alone = user_metrics(ranks[offsets[row] : offsets[row + 1]], lengths[row : row + 1], [5])
        for name, values in together.items():
            assert values[row] == alone[name][0]
