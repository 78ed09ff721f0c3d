"""Items that nobody has taken: in no list and no ranking of a model that does not read their content."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

import segue
from segue.data.dataset import Dataset
from segue.data.histories import Histories
from segue.evaluation.candidates import sample_candidates
from segue.inference.asking.ids import ColdItemWarning
from segue.inference.recommender import Recommender
from segue.inference.scorer import Scorer
from segue.inference.scoring.batches import Limits
from segue.inference.scoring.ranking import target_ranks, top_k
from segue.training.config import Training
from tests.helpers import cycle_dataset

COLD = 6


@pytest.fixture(scope="module")
def data() -> Dataset:
    log = cycle_dataset(n_users=12, n_items=8, length=6).to_frame()
    items = pl.DataFrame({"item": range(1, 9 + COLD), "price": range(8 + COLD)})
    return segue.prepare(log, items=items)


@pytest.fixture(scope="module", params=["popularity", "markov", "sasrec"])
def recommender(request: pytest.FixtureRequest, data: Dataset) -> Recommender:
    config = {
        "popularity": segue.Popularity(),
        "markov": segue.Markov(),
        "sasrec": segue.SASRec(width=8, blocks=1, heads=1),
    }[request.param]
    return segue.fit(config, data, training=Training(epochs=1, cpu=True), quiet=True)


def test_no_list_has_a_cold_item(data: Dataset, recommender: Recommender) -> None:
    assert data.cold_items.tolist() == list(range(9, 9 + COLD))
    every = recommender.recommend(segue.EVERYONE, k=data.n_items, exclude_seen=False)
    assert set(every["item"]) == set(range(1, 9))
    one = recommender.recommend(every["user"][0], k=data.n_items, exclude_seen=False)
    assert set(one["item"]) == set(range(1, 9))
    nobody = recommender.recommend("nobody", k=data.n_items, unknown="popular")
    assert set(nobody["item"]) == set(range(1, 9))
    allowed = recommender.recommend(every["user"][0], k=3, allow=[9, 10])
    assert not len(allowed)


def test_small_chunks_hide_them_too(data: Dataset, recommender: Recommender) -> None:
    scorer, histories = recommender.scorer, data.histories()
    limits = Limits(chunk_items=4)
    codes, _ = top_k(scorer, histories, data.n_items, exclude_seen=False, limits=limits)
    assert set(codes.flat) == set(range(9))


def test_scores_of_cold_items_are_null_with_a_warning(recommender: Recommender) -> None:
    user = recommender.dataset.users.ids[0]
    for items in ([1, 9], list(range(1, 15))):
        with pytest.warns(ColdItemWarning, match="nobody had taken when the model was fitted"):
            frame = recommender.score(user, items, long=True)
        scores = dict(zip(frame["item"], frame["score"], strict=True))
        assert scores[9] is None and scores[1] is not None
        with pytest.warns(ColdItemWarning):
            assert recommender.score(user, items)["9"].to_list() == [None]


def test_a_cold_target_is_missed_and_cold_items_are_no_candidates(data: Dataset, recommender: Recommender) -> None:
    histories = data.histories()
    n = len(histories)
    targets = Histories(histories.users, np.full(n, 9, dtype=np.int32), np.arange(n), np.arange(n) + 1)
    assert set(target_ranks(recommender.scorer, histories, targets)) == {data.n_items + 1}
    warm = Histories(histories.users, np.full(n, 1, dtype=np.int32), np.arange(n), np.arange(n) + 1)
    assert target_ranks(recommender.scorer, histories, warm, exclude_seen=False).max() <= 8
    candidates = np.tile(np.arange(9, 15), (n, 1))
    assert set(target_ranks(recommender.scorer, histories, warm, exclude_seen=False, candidates=candidates)) == {1}


def test_sampled_candidates_are_items_that_somebody_took(data: Dataset) -> None:
    split = segue.leave_last_out(data)
    assert sample_candidates(split.test, 2).codes.max() <= 8


def test_similar_items_are_not_cold(recommender: Recommender) -> None:
    if recommender.model.config.name == "popularity":
        pytest.skip("popularity has no vectors")
    with pytest.warns(ColdItemWarning, match="similar to none"):
        frame = recommender.similar([1, 9], k=10)
    assert set(frame["item"]) == {1} and frame["similar"].max() <= 8  # type: ignore[operator]


def test_cold_items_have_no_reasons(recommender: Recommender) -> None:
    user = recommender.dataset.users.ids[0]
    with pytest.warns(ColdItemWarning, match="have no reasons"):
        frame = recommender.explain(user, [1, 9])
    assert set(frame["item"]) == {1}


def test_a_saved_recommender_knows_them(tmp_path: object, recommender: Recommender) -> None:
    path = recommender.save(f"{tmp_path}/saved")
    opened = segue.load(path)
    assert opened.model.cold is not None and opened.model.cold.tolist() == list(range(9, 9 + COLD))
    assert opened.dataset.items_frame["price"].to_list() == list(range(14))
    assert opened.recommend(segue.EVERYONE, k=5).equals(recommender.recommend(segue.EVERYONE, k=5))


def test_a_model_that_reads_content_is_asked_about_them(data: Dataset, recommender: Recommender) -> None:
    model = recommender.model.frozen()
    model.cold, model.reads_content = None, True
    model.meet(data)
    codes, _ = top_k(Scorer.of(model), data.histories(), data.n_items, exclude_seen=False)
    assert set(codes.flat) == set(range(1, data.n_items + 1))
