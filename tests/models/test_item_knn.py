from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

import segue
from segue.errors import ConfigError
from segue.models import item_knn, sparse
from segue.models.item_knn import ItemKNN
from tests.models.baskets import N_ITEMS, QUESTIONS, World, as_histories, fitted, scores_of, world


def similarities(config: ItemKNN, small: World) -> npt.NDArray[np.float64]:
    if config.within == "session":
        units = [set(basket) for baskets in small.baskets for basket in baskets]
    else:
        units = [{item for basket in baskets for item in basket} for baskets in small.baskets]
    similar = np.zeros((N_ITEMS + 1, N_ITEMS + 1))
    for a in range(1, N_ITEMS + 1):
        for b in range(1, N_ITEMS + 1):
            both = sum(a in unit and b in unit for unit in units)
            if a != b and both:
                norm = np.sqrt(sum(a in unit for unit in units) * sum(b in unit for unit in units))
                similar[a, b] = both / (norm + config.shrinkage)
        kept = np.argsort(-similar[a].astype(np.float32), kind="stable")[: config.neighbours]
        similar[a, np.setdiff1d(np.arange(N_ITEMS + 1), kept)] = 0
    return similar


@pytest.mark.parametrize("cost", [256.0, 0.0])
@pytest.mark.parametrize(
    "config", [ItemKNN(neighbours=4), ItemKNN(within="session", shrinkage=3.0, decay=0.8, neighbours=6)]
)
def test_scores_equal_the_equations(config: ItemKNN, cost: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse, "_COST_OF_MEETING", cost)
    monkeypatch.setattr(item_knn, "_ELEMENTS", 5 * (N_ITEMS + 1))
    small = world()
    model = fitted(config, small.dataset())
    similar = similarities(config, small)
    scores = scores_of(model, as_histories(QUESTIONS, [0, 4, 0]))
    for row, baskets in enumerate(QUESTIONS):
        expected = config.smoothing * small.shares()
        newest = {item: number for number, basket in enumerate(baskets) for item in basket}
        for item, number in newest.items():
            expected += config.decay ** (len(baskets) - 1 - number) * similar[item]
        assert scores[row] == pytest.approx(expected, abs=1e-5)


def test_sessions_are_needed_for_items_within_sessions() -> None:
    with pytest.raises(ConfigError, match="needs a Dataset with sessions"):
        segue.fit(ItemKNN(within="session"), world().dataset(sessions=False))
