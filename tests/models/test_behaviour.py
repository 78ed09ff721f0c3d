from __future__ import annotations

from collections.abc import Iterator

import pytest

from segue.models.base import ModelConfig
from segue.models.registry import MODELS
from tests.models.behaviour import Behaviour, Fitted, fit_small_world

SMALL = {"width": 16, "blocks": 1, "max_length": 6, "dropout": 0.0, "loss": "softmax"}
CONFIGS = {
    "sasrec": SMALL,
    "ssept": {**{name: value for name, value in SMALL.items() if name != "width"}, "item_width": 16, "user_width": 4},
    "parsrec": {"item_width": 16, "user_width": 4},
    "popularity": {},
    "recent-popularity": {},
    "markov": {"smoothing": 0.1},
}


def config(name: str) -> ModelConfig:
    assert name in CONFIGS, f"{name} is new in the registry: give it a small config here, so that the suite covers it"
    return MODELS[name].from_dict(CONFIGS[name])


@pytest.fixture(scope="module", params=list(MODELS))
def fitted(request: pytest.FixtureRequest) -> Iterator[Fitted]:
    yield fit_small_world(config(request.param))


@pytest.fixture
def again(fitted: Fitted) -> Fitted:
    return fit_small_world(fitted.config)


class TestBehaviour(Behaviour):
    pass
