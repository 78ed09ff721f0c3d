from __future__ import annotations

from collections.abc import Iterator

import pytest

from segue.inference.recommender import Recommender
from segue.models.base import ModelConfig
from segue.models.ratings import RatingModel
from segue.models.registry import MODELS
from tests.models.behaviour import Fitted, NextItemBehaviour, fit_small_world, fit_twins
from tests.models.behaviour_ratings import FittedRatings, RatingBehaviour, fit_rated_world

SMALL = {"width": 16, "blocks": 1, "max_length": 6, "dropout": 0.0, "loss": "softmax", "repeats": False}
CONFIGS = {
    "sasrec": SMALL,
    "ssept": {**{name: value for name, value in SMALL.items() if name != "width"}, "item_width": 16, "user_width": 4},
    "gru4rec": {
        "width": 16,
        "max_length": 6,
        "dropout_input": 0.0,
        "dropout_hidden": 0.0,
        "negatives": 32,
        "repeats": False,
    },
    "hstu": {**SMALL, "time_bias": False},
    "bert4rec": {**SMALL, "masked": 0.3, "newest_every": 1, "own_dropout": 0.05},
    "lrurec": SMALL,
    "parsrec": {"item_width": 16, "user_width": 4, "loss": "softmax", "repeats": False},
    "popularity": {},
    "recent-popularity": {},
    "markov": {"smoothing": 0.1},
    "personal-frequency": {"behind": "markov"},
    "tifu-knn": {"neighbours": 20, "group_size": 2},
    "up-cf": {},
    "vsknn": {"unit": "history"},
    "vstan": {"unit": "history"},
    "item-knn": {},
    "ease": {"reg": 5.0},
    "content-neighbours": {"features": ("pairs",)},
    "category-popularity": {"category": "shop"},
    "global-mean": {},
    "rating-bias": {},
    "matrix-factorization": {"width": 4, "reg": 0.3},
    "bayesian-factorization": {"width": 2, "burn_in": 20, "draws": 20, "levels": (1.0, 2.0, 3.0, 4.0, 5.0)},
    "arerec": {"width": 8, "levels": (1.0, 2.0, 3.0, 4.0, 5.0), "history_length": 20, "look_back": "past"},
}
LEARNT = ("sasrec", "ssept", "gru4rec", "hstu", "bert4rec", "lrurec", "parsrec")
VARIANTS = {"repeats": {"repeats": True}, "features": {"features": ("shop",), "repeats": False}}
"""Settings with which the suite tests these models again."""


def config(name: str) -> ModelConfig:
    name, _, variant = name.partition("+")
    assert name in CONFIGS, f"{name} is new in the registry: give it a small config here, so that the suite covers it"
    return MODELS[name].from_dict({**CONFIGS[name], **VARIANTS.get(variant, {})})


def rates(name: str) -> bool:
    """Check that it is a rating model."""
    return isinstance(config(name).build(2, 3), RatingModel)


NEXT_ITEM_MODELS = [name for name in MODELS if not rates(name)]
NEXT_ITEM_MODELS += [f"{name}+{variant}" for name in LEARNT for variant in VARIANTS]


class TestNextItems(NextItemBehaviour):
    @pytest.fixture(
        scope="class",
        params=NEXT_ITEM_MODELS,
    )
    @classmethod
    def fitted(cls, request: pytest.FixtureRequest) -> Iterator[Fitted]:
        yield fit_small_world(config(request.param))

    @pytest.fixture
    def twins(self, fitted: Fitted) -> tuple[Recommender, Recommender]:
        return fit_twins(fitted)


class TestRatings(RatingBehaviour):
    @pytest.fixture(scope="class", params=[name for name in MODELS if rates(name)])
    @classmethod
    def fitted(cls, request: pytest.FixtureRequest) -> Iterator[FittedRatings]:
        yield fit_rated_world(config(request.param))

    @pytest.fixture
    def twins(self, fitted: FittedRatings) -> tuple[Recommender, Recommender]:
        return fit_twins(fitted)
