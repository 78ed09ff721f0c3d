from __future__ import annotations

import numpy as np
import pytest

import segue
from segue.errors import ConfigError
from segue.models.ease import EASE
from tests.models.baskets import N_ITEMS, N_USERS, QUESTIONS, as_histories, fitted, scores_of, world


@pytest.mark.parametrize("size", [None, 6])
def test_scores_equal_the_closed_form(size: int | None) -> None:
    small, config = world(), EASE(reg=3.0, items=size)
    taken = np.zeros((N_USERS, N_ITEMS + 1))
    for row, baskets in enumerate(small.baskets):
        taken[row, [item for basket in baskets for item in basket]] = 1
    order = np.lexsort((np.arange(1, N_ITEMS + 1), -small.shares()[1:])) + 1
    kept = np.sort(order[:size])
    matrix = taken[:, kept]
    inverse = np.linalg.inv(matrix.T @ matrix + config.reg * np.eye(len(kept)))
    weights = np.zeros((N_ITEMS + 1, N_ITEMS + 1))
    weights[np.ix_(kept, kept)] = -inverse / np.diag(inverse) * (1 - np.eye(len(kept)))
    scores = scores_of(fitted(config, small.dataset()), as_histories(QUESTIONS, [0, 4, 0]))
    for row, baskets in enumerate(QUESTIONS):
        items = sorted({item for basket in baskets for item in basket})
        assert scores[row] == pytest.approx(weights[items].sum(0) + config.smoothing * small.shares(), abs=1e-5)


def test_a_catalogue_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segue.models.ease._MAX_ITEMS", 10)
    with pytest.raises(ConfigError, match=r"15 items need .* GB .* Give items=5000"):
        segue.fit(EASE(), world().dataset())
    segue.fit(EASE(items=8), world().dataset(), quiet=True)
