from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from segue.models import sparse
from segue.models.up_cf import UPCF
from tests.models.baskets import N_ITEMS, QUESTIONS, as_histories, fitted, scores_of, world


def recent(config: UPCF, baskets: list[list[int]]) -> npt.NDArray[np.float64]:
    newest = baskets if config.recency is None else baskets[-config.recency :]
    shares = np.zeros(N_ITEMS + 1)
    for basket in newest:
        for item in set(basket):
            shares[item] += 1 / len(newest)
    return shares


def naive(config: UPCF, users: list[list[list[int]]], baskets: list[list[int]], code: int) -> npt.NDArray[np.float64]:
    own = {item for basket in baskets for item in basket}
    scores = recent(config, baskets)
    for number, other in enumerate(users, 1):
        if number == code:
            continue
        items = {item for basket in other for item in basket}
        norm = len(own) ** config.asymmetry * len(items) ** (1 - config.asymmetry)
        scores += (len(own & items) / norm) ** config.locality * recent(config, other)
    return scores


@pytest.mark.parametrize("cost", [256.0, 0.0])
@pytest.mark.parametrize(
    "config", [UPCF(), UPCF(recency=2, locality=1, asymmetry=0.5), UPCF(recency=None, locality=2.5)]
)
def test_scores_equal_the_equations(config: UPCF, cost: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse, "_COST_OF_MEETING", cost)
    small = world()
    model = fitted(config, small.dataset())
    prior = config.smoothing * small.shares()
    everyone = scores_of(model, small.dataset().histories())
    for row, baskets in enumerate(small.baskets):
        assert everyone[row] == pytest.approx(naive(config, small.baskets, baskets, row + 1) + prior, abs=1e-5)
    given = scores_of(model, as_histories(QUESTIONS, [0, 4, 0]))
    for row, (baskets, code) in enumerate(zip(QUESTIONS, [0, 4, 0], strict=True)):
        assert given[row] == pytest.approx(naive(config, small.baskets, baskets, code) + prior, abs=1e-5)
