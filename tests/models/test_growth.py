"""Models and grown vocabularies: weights by raw id, unknown items, forgotten users; for every model of the registry."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import segue
from segue.errors import ConfigError, DataError
from segue.models.base import CountingModel
from segue.models.growth import LOWEST, carry
from segue.models.ratings import RatingModel
from segue.models.registry import _HOMES
from tests.helpers import cycle_dataset

CONFIGS: dict[str, segue.ModelConfig] = {
    "sasrec": segue.SASRec(width=8, blocks=1, transitions=False),
    "ssept": segue.SSEPT(item_width=4, user_width=4, blocks=1),
    "gru4rec": segue.GRU4Rec(width=8),
    "hstu": segue.HSTU(width=8, blocks=1),
    "lrurec": segue.LRURec(width=8, blocks=1),
    "sasrec-transitions": segue.SASRec(width=8, blocks=1, transitions=True),
    "bert4rec": segue.BERT4Rec(width=8, blocks=1),
    "parsrec": segue.PARSRec(user_width=4, item_width=4),
    "arerec": segue.ARERec(width=4, region_size=2),
    "arerec-published": segue.ARERec(
        width=4, region_size=2, contexts="interaction", biases=False, neighbour_ratings=False, look_back="train"
    ),
    "matrix-factorization": segue.MatrixFactorization(width=3),
    "bayesian-factorization": segue.BayesianFactorization(width=3, burn_in=2, draws=3),
    "rating-bias": segue.RatingBias(),
    "global-mean": segue.GlobalMean(),
    "markov": segue.Markov(),
    "popularity": segue.Popularity(),
    "recent-popularity": segue.RecentPopularity(),
    "personal-frequency": segue.PersonalFrequency(),
    "tifu-knn": segue.TIFUKNN(neighbours=5),
    "up-cf": segue.UPCF(),
    "vsknn": segue.VSKNN(neighbours=5),
    "vstan": segue.VSTAN(neighbours=5),
    "item-knn": segue.ItemKNN(neighbours=5),
    "ease": segue.EASE(),
}
CONTENT = {"category-popularity", "content-neighbours"}
"""Models that need an item table."""
NEW = [50, 51]
TRAINING = segue.Training(epochs=1, cpu=True)


def log() -> pl.DataFrame:
    frame = cycle_dataset(24, 12, 6).to_frame()
    times = pl.int_range(pl.len())
    return frame.with_columns(time=times, rating=(times % 5 + 1).cast(pl.Float32), session=times // 2)


def later() -> pl.DataFrame:
    columns = {"user": [1, 1, 2, 99, 99, 99, 99, 99, 99], "item": [9, 10, 50, 50, 51, 1, 2, 3, 50]}
    ratings = pl.Series([3.0, 2.0, 4.0, 5.0, 3.0, 1.0, 4.0, 2.0, 5.0], dtype=pl.Float32)
    times = pl.int_range(1000, 1009)
    return pl.DataFrame(columns).with_columns(time=times, rating=ratings, session=times // 2 + 5000)


@pytest.fixture(scope="module")
def data() -> segue.Dataset:
    return segue.prepare(log())


@pytest.fixture(scope="module")
def grown(data: segue.Dataset) -> segue.Dataset:
    return data.append(later())


def split(config: segue.ModelConfig, data: segue.Dataset) -> segue.Split:
    return segue.last_session_out(data) if config.name == "parsrec" else segue.leave_last_out(data)


@pytest.fixture(scope="module")
def fitted(data: segue.Dataset) -> dict[str, segue.Recommender]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            name: segue.fit(config, split(config, data), training=TRAINING, quiet=True)
            for name, config in CONFIGS.items()
        }


def test_every_model_is_here() -> None:
    assert set(CONFIGS) - {"arerec-published", "sasrec-transitions"} == set(_HOMES) - CONTENT


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CONFIGS)
def test_a_start_carries_rows_by_raw_id(
    name: str, fitted: dict[str, segue.Recommender], data: segue.Dataset, grown: segue.Dataset
) -> None:
    old = fitted[name]
    model = old.model.config.build(grown.n_users, grown.n_items)
    if isinstance(model, CountingModel):
        assert model.recounts or model.learned_buffers()
        return
    model.prepare(grown)
    carry(model, old.model, grown, data, learned_only=True)
    state, before = model.state_dict(), old.model.state_dict()
    for tensor, rows in model.code_rows().items():
        if tensor not in dict(model.named_parameters()):
            continue
        new, former = (one.catalogue if rows.side == "items" else one.users for one in (grown, data))
        codes = torch.from_numpy(former.encode(new.ids))
        known = codes > 0
        assert torch.equal(state[tensor][1:][known], before[tensor][codes[known]]), tensor
        assert torch.equal(state[tensor][0], before[tensor][0])
        filled = state[tensor][1:][~known]
        expected = before[tensor][1:].mean(0) if rows.fill == "mean" else torch.zeros_like(filled[0])
        assert torch.allclose(filled, expected.expand_as(filled), atol=1e-6), tensor
    for tensor in dict(model.named_parameters()).keys() - model.code_rows().keys() - model.drawn_on_start():
        assert torch.equal(state[tensor], before[tensor]), tensor


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CONFIGS)
def test_training_goes_on_from_a_start(
    name: str, fitted: dict[str, segue.Recommender], grown: segue.Dataset, tmp_path: Path
) -> None:
    config = CONFIGS[name]
    started = segue.fit(
        config, split(config, grown), training=TRAINING, quiet=True, start=fitted[name], out=tmp_path / "run"
    )
    assert started.model.n_items == grown.n_items
    assert started.recommend([1, 99], k=3).height == 6
    assert segue.load(tmp_path / "run").recommend([1], k=2).height == 2


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CONFIGS)
def test_newer_data_are_answered_without_training(
    name: str, fitted: dict[str, segue.Recommender], grown: segue.Dataset, tmp_path: Path
) -> None:
    old = fitted[name]
    live = old.with_data(grown)
    lists = live.recommend([1, 2, 99], k=12)
    rating = isinstance(live.model, RatingModel)
    if isinstance(live.model, CountingModel) and live.model.recounts:
        assert live.known_items is None
    else:
        assert live.known_items is not None and not live.known_items[-2:].any()
        assert not set(lists["item"]) & set(NEW)
        scores = live.score([1], NEW, long=True)["score"].to_numpy()
        assert np.isfinite(scores).all() and (rating or (scores == np.float32(LOWEST)).all())
    seen = set(grown.to_frame().filter(pl.col("user") == 1)["item"])
    assert not seen & set(lists.filter(pl.col("user") == 1)["item"])
    live.save(tmp_path / "live")
    assert segue.load(tmp_path / "live").recommend([1, 2, 99], k=12).equals(lists)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CONFIGS)
def test_answers_of_untouched_users_stay(name: str, fitted: dict[str, segue.Recommender], grown: segue.Dataset) -> None:
    old = fitted[name]
    if isinstance(old.model, CountingModel) and old.model.recounts:
        return
    before, after = old.recommend([5, 6], k=4), old.with_data(grown).recommend([5, 6], k=4)
    assert before["item"].equals(after["item"])
    assert np.allclose(before["score"], after["score"], atol=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CONFIGS)
def test_added_items_have_codes(name: str, fitted: dict[str, segue.Recommender]) -> None:
    more = fitted[name].add_items(pl.DataFrame({"item": [70, 71, 1]}))
    assert more.dataset.catalogue.encode([70, 71, 1]).tolist() == [13, 14, 1]
    lists = more.recommend([1], k=14, deny=[71], exclude_seen=False)
    if more.known_items is not None:
        assert set(lists["item"]) == set(range(1, 13))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CONFIGS)
def test_forgotten_users_leave_no_rows(name: str, fitted: dict[str, segue.Recommender], tmp_path: Path) -> None:
    left = fitted[name].forget([1, 2])
    state = left.model.state_dict()
    for tensor, rows in left.model.code_rows().items():
        if rows.side == "users":
            assert not state[tensor][1:3].any(), tensor
    left.save(tmp_path / "left")
    again = segue.load(tmp_path / "left")
    assert not {1, 2} & set(again.recommend(segue.EVERYONE, k=2)["user"])
    with pytest.raises(segue.SegueError, match="unknown user"):
        again.recommend([1], k=2)
    if name.startswith("arerec"):
        assert not {1, 2} & set(state["raters"].tolist())
    assert fitted[name].recommend([1], k=2).height == 2  # the first one is as it was


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CONFIGS)
def test_saves_without_histories(name: str, fitted: dict[str, segue.Recommender], tmp_path: Path) -> None:
    old = fitted[name]
    if name.startswith("arerec"):
        with pytest.raises(ConfigError, match="histories=False: arerec reads the ratings of its users"):
            old.save(tmp_path / "light", histories=False)
        return
    old.save(tmp_path / "light", histories=False)
    light = segue.load(tmp_path / "light")
    assert light.dataset.n_interactions == 0
    given: dict[str, Any] = {"histories": {5: [5, 6, 7]}, "k": 3}
    assert light.recommend(**given).equals(old.recommend(**given))
    unknown = {"unknown": "popular", "k": 3}
    if old.model.needs_history:
        with pytest.raises(DataError, match="saved without histories"):
            light.recommend([1], k=3)
        with pytest.raises(DataError, match="saved without histories"):
            light.recommend(segue.EVERYONE, k=3)
        with pytest.raises(DataError, match="saved without histories"):
            light.explain([1], [2])
        assert light.recommend(histories=[[]], k=3).equals(old.recommend(histories=[[]], k=3))
    else:
        assert light.recommend([777], **unknown).equals(old.recommend([777], **unknown))
    light.save(tmp_path / "again")
    assert segue.load(tmp_path / "again").recommend(**given).equals(old.recommend(**given))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (segue.SASRec(width=16, blocks=1), "width=16 differs from width=8 of the model to start from"),
        (segue.SASRec(width=8, blocks=2), "blocks=2 differs from blocks=1"),
        (segue.GRU4Rec(width=8), "the model to start from is sasrec, and the new one is gru4rec"),
    ],
)
def test_another_model_is_refused_by_name(
    config: segue.ModelConfig, message: str, fitted: dict[str, segue.Recommender], grown: segue.Dataset
) -> None:
    with pytest.raises(ConfigError, match=message):
        segue.fit(config, split(config, grown), training=TRAINING, quiet=True, start=fitted["sasrec"])


def test_settings_that_change_no_weight_may_differ(fitted: dict[str, segue.Recommender], grown: segue.Dataset) -> None:
    config = segue.SASRec(width=8, blocks=1, dropout=0.1, loss="gbce", negatives=3)
    segue.fit(config, split(config, grown), training=TRAINING, quiet=True, start=fitted["sasrec"])


@pytest.mark.parametrize("name", ["sasrec", "sasrec-transitions"])
def test_what_is_left_to_the_data_is_as_in_the_start(
    name: str, fitted: dict[str, segue.Recommender], grown: segue.Dataset
) -> None:
    config = segue.SASRec(width=8, blocks=1)
    model = segue.fit(config, split(config, grown), training=TRAINING, quiet=True, start=fitted[name]).model.config
    assert isinstance(model, segue.SASRec)
    assert model.transitions is (name == "sasrec-transitions")


def test_a_loss_that_is_left_to_the_data_is_chosen_anew(
    fitted: dict[str, segue.Recommender], grown: segue.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segue.models.negatives.SMALL_CATALOGUE", 0)
    config = segue.SASRec(width=8, blocks=1)
    started = segue.fit(config, split(config, grown), training=TRAINING, quiet=True, start=fitted["sasrec"])
    assert fitted["sasrec"].model.config.to_dict()["loss"] == "softmax"
    assert started.model.config.to_dict()["loss"] == "sampled-softmax"
