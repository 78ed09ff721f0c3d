"""Settings and data of ARERec: clear errors for impossible ones, sensible results for unusual ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segue
from segue.data.dataset import Dataset
from segue.data.splits.by_user import random_rows
from segue.errors import ConfigError, DataError, UnknownIdError
from segue.inference.asking.ids import UnknownIdWarning, UnratedItemWarning
from segue.inference.recommender import Recommender
from segue.models.arerec.arerec import ARERec
from segue.models.registry import config_from_dict
from segue.training.config import Training
from tests.helpers import make_dataset
from tests.models.rating_models import rated_dataset

SHORT = Training(epochs=1, cpu=True)
FORMS: list[dict[str, Any]] = [{}, {"contexts": "interaction", "biases": False, "neighbour_ratings": False}]


def world(**changes: Any) -> Dataset:
    return replace(rated_dataset(30, 12, 14), **changes)


def rated(values: Any) -> Dataset:
    """Return the world with the ratings mapped by `values`."""
    data = world()
    assert data.ratings is not None
    return replace(data, ratings=np.asarray(values(data.ratings), dtype=np.float32))


def fitted(data: Any, **settings: Any) -> Recommender:
    return segue.fit(ARERec(**{"width": 8, **settings}), data, training=SHORT, quiet=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 0}, "width=0: expected 1 or more"),
        ({"heads": 3}, "heads=3 does not divide width=64"),
        ({"group": 0}, "group=0"),
        ({"region_size": 0}, "region_size=0"),
        ({"dropout_k_ui": 1.0}, "dropout_k_ui=1.0: expected a share"),
        ({"l2_key": -1.0}, "l2_key=-1.0"),
        ({"contexts": "own"}, "contexts='own': expected shared or interaction"),
        ({"keep": "all"}, "keep='all': expected newest or oldest"),
        ({"look_back": "future"}, "look_back='future': expected past, train, reference or None"),
        ({"history_length": 0}, "history_length=0: expected a whole number from 1"),
        ({"history_length": "longest"}, "history_length='longest'"),
        ({"history_length": 2.5}, "history_length=2.5"),
        ({"levels": (1.0,)}, "expected two or more numbers"),
        ({"levels": (2.0, 1.0)}, "ascending"),
        ({"levels": (1.0, 1.0)}, "ascending"),
        ({"levels": (1.0, float("inf"))}, "expected finite numbers or None"),
        ({"levels": tuple(map(float, range(300)))}, "300 of them are not a scale; expected 101 at most"),
        ({"look_back": "reference"}, "the model would copy it"),
    ],
)
def test_impossible_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ARERec(**settings)


def test_unresolved_settings_build_nothing() -> None:
    with pytest.raises(ConfigError, match=r"with resolved\(\)"):
        ARERec().build(3, 4)


def test_settings_are_filled_in_from_the_visible_part() -> None:
    data = make_dataset([[1, 2, 3], [1, 2], [1, 4]], [[1, 2, 3], [1, 2], [1, 2]], [[1, 3, 5], [3, 3], [1, 4]])
    train = data.until(data.ends - np.array([0, 0, 0, 1]))  # the only 4, and item 4, are hidden
    resolved = ARERec(history_length="mean").resolved(train)
    assert (resolved.levels, resolved.history_length, resolved.look_back) == ((1.0, 3.0, 5.0), 2, "past")
    assert ARERec(history_length="max").resolved(train).history_length == 3
    assert ARERec(history_length=7).resolved(train).history_length == 7
    assert ARERec().resolved(replace(train, times=None)).look_back == "train"
    assert ARERec().resolved(random_rows(world()).train).look_back == "train"
    assert ARERec(look_back="train").resolved(train).look_back == "train"
    again = config_from_dict(json.loads(json.dumps(resolved.to_dict())))
    assert again == resolved and resolved.resolved(train) == resolved


def test_data_that_cannot_be_learnt_from() -> None:
    with pytest.raises(DataError, match="no ratings"):
        fitted(world(ratings=None))
    with pytest.raises(DataError, match="are 1: with a single level there is nothing to predict"):
        fitted(rated(np.ones_like))
    with pytest.raises(DataError, match=r"different values.*matrix-factorization"):
        fitted(rated(lambda ratings: np.arange(len(ratings)) % 200))
    with pytest.raises(DataError, match=r"ratings of 4, 5 are none of the 3 levels 1, 2, 3"):
        fitted(world(), levels=(1.0, 2.0, 3.0))
    with pytest.raises(DataError, match="look_back='past' needs times"):
        fitted(world(times=None), look_back="past")
    with pytest.raises(DataError, match="missing or not finite"):
        fitted(rated(lambda ratings: np.where(ratings == 3, np.nan, ratings)))


def test_half_stars_are_ten_levels() -> None:
    parity = np.random.default_rng(0)
    data = rated(lambda ratings: ratings - parity.choice([0, 0.5], len(ratings)))
    model = fitted(data).model
    assert model.levels == tuple(np.arange(1, 11) / 2)  # type: ignore[union-attr]
    assert fitted(world(), levels=[1, 2, 3, 4, 5]).model.levels == (1, 2, 3, 4, 5)  # type: ignore[union-attr]


def test_tenths_keep_their_levels() -> None:
    """Test levels such as 0.1, which binary floating point cannot represent exactly."""
    data = rated(lambda ratings: ratings / 10)
    given = fitted(data, levels=(0.1, 0.2, 0.3, 0.4, 0.5))
    assert fitted(data).score(segue.EVERYONE, long=True)["score"].to_list() == pytest.approx(
        given.score(segue.EVERYONE, long=True)["score"].to_list()
    )


def test_more_levels_than_were_seen() -> None:
    scores = fitted(world(), levels=tuple(float(level) for level in range(8))).score(segue.EVERYONE, long=True)["score"]
    assert scores.is_between(0, 7).all()


@pytest.mark.parametrize("form", FORMS, ids=["shared", "published"])
@pytest.mark.parametrize("look_back", ["past", "train"])
def test_saved_and_loaded(tmp_path: Path, form: dict[str, Any], look_back: str) -> None:
    recommender = fitted(random_rows(world()), look_back=look_back, **form)
    recommender.save(tmp_path / "saved")
    loaded = segue.load(tmp_path / "saved")
    assert loaded.score(segue.EVERYONE, long=True).equals(recommender.score(segue.EVERYONE, long=True))
    assert loaded.explain(3, [10, 20]).equals(recommender.explain(3, [10, 20]))
    assert loaded.model.config == recommender.model.config


@pytest.mark.parametrize("form", FORMS, ids=["shared", "published"])
def test_the_refit_knows_more(form: dict[str, Any]) -> None:
    split = random_rows(world())
    once, again = (
        segue.fit(ARERec(width=8, **form), split, training=SHORT, refit=refit, quiet=True) for refit in (False, True)
    )
    held = split.train.n_interactions, split.refit.n_interactions
    assert held[0] < held[1]
    for recommender, n in zip((once, again), held, strict=True):
        assert len(recommender.model.raters) == n  # type: ignore[arg-type]
        if form:
            assert recommender.model.regions.sizes == (n + 1, n + 1)  # type: ignore[union-attr, operator]


def test_unrated_items_and_unknown_users() -> None:
    data = world()
    data = replace(data, catalogue=type(data.catalogue)([*data.catalogue.ids, 5_000]))
    recommender = fitted(data)
    with pytest.warns(UnratedItemWarning, match="5000"):
        assert recommender.score(1, 5_000, long=True)["score"].is_between(1, 5).all()
    with pytest.warns(UnratedItemWarning, match="5000"):
        assert recommender.explain(1, 5_000).is_empty()
    with pytest.warns(UnknownIdWarning, match="77"):
        assert recommender.recommend([1, 77], k=2, deny=[5_000])["user"].unique().to_list() == [1]
    with pytest.raises(UnknownIdError):
        recommender.score(1, 6_000)
    anyone = recommender.score(histories=[[]], items=[10, 20], long=True)
    assert recommender.score(77, [10, 20], unknown="popular", long=True)["score"].equals(anyone["score"])


def test_as_of_hides_later_neighbours() -> None:
    data = world()
    recommender = fitted(data, look_back="past")
    assert data.times is not None
    when = int(np.median(data.times))
    reasons = recommender.explain(data.users.ids.to_list()[:5], 10, as_of=when)
    assert len(reasons) > 3
    late = recommender.explain(data.users.ids.to_list()[:5], 10)
    assert len(late) > len(reasons)
    stamps = reasons["time"].to_list()
    assert max(stamp if isinstance(stamp, int) else stamp.timestamp() for stamp in stamps) < when
