from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from segue.models import sparse
from segue.models.tifu_knn import TIFUKNN
from tests.models.baskets import N_ITEMS, QUESTIONS, as_histories, fitted, scores_of, world


def vector(config: TIFUKNN, baskets: list[list[int]]) -> npt.NDArray[np.float64]:
    """Equations 1 to 3 of the paper, groups from the newest basket on."""
    groups, rest = [], list(baskets)
    while rest:
        groups.append(rest[-config.group_size :])
        rest = rest[: -config.group_size]
    total = np.zeros(N_ITEMS + 1)
    for number, group in enumerate(groups):
        mean = np.zeros(N_ITEMS + 1)
        for place, basket in enumerate(reversed(group)):
            for item in set(basket):
                mean[item] += config.within_decay**place / len(group)
        total += config.group_decay**number * mean / len(groups)
    return total


def naive(
    config: TIFUKNN, users: list[list[list[int]]], baskets: list[list[int]], code: int
) -> npt.NDArray[np.float64]:
    own = vector(config, baskets)
    others = [vector(config, other) for number, other in enumerate(users, 1) if number != code]
    distances = [((own - other) ** 2).sum() for other in others]
    chosen = np.argsort(distances, kind="stable")[: config.neighbours]
    return config.alpha * own + (1 - config.alpha) * np.mean([others[one] for one in chosen], axis=0)


@pytest.mark.parametrize("cost", [256.0, 0.0])
@pytest.mark.parametrize(
    "config", [TIFUKNN(neighbours=5, group_size=3), TIFUKNN.as_published(), TIFUKNN(alpha=0.2, neighbours=1)]
)
def test_scores_equal_the_equations(config: TIFUKNN, cost: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse, "_COST_OF_MEETING", cost)
    monkeypatch.setattr(sparse, "_MAX_MEETINGS", 50)
    small = world()
    model = fitted(config, small.dataset())
    prior = config.smoothing * small.shares()
    everyone = scores_of(model, small.dataset().histories())
    for row, baskets in enumerate(small.baskets):
        assert everyone[row] == pytest.approx(naive(config, small.baskets, baskets, row + 1) + prior, abs=1e-5)
    given = scores_of(model, as_histories(QUESTIONS, [0, 4, 0]))
    for row, (baskets, code) in enumerate(zip(QUESTIONS, [0, 4, 0], strict=True)):
        assert given[row] == pytest.approx(naive(config, small.baskets, baskets, code) + prior, abs=1e-5)


def test_nearest_takes_the_first_of_equal_ones() -> None:
    distances = np.array([[2, 1, 1, 1, np.inf], [np.inf] * 5, [3, 3, 0, 3, 3]], dtype=np.float32)
    chosen = sparse.nearest(distances, 2)
    assert chosen.tolist() == [[False, True, True, False, False], [False] * 5, [True, False, True, False, False]]
    assert sparse.nearest(distances, 5).sum(1).tolist() == [4, 0, 5]
