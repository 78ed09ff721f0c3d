from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from segue.data.histories import Histories
from segue.inference.recommender import Recommender
from segue.inference.scorer import Scorer
from segue.inference.scoring.similar import ItemCosines, SparseItemCosines, similarity_scorer
from segue.models.markov import Markov
from tests.inference.fakes import random_dataset


@pytest.fixture(scope="module")
def markov() -> Recommender:
    data = random_dataset(400, 150, 12)
    model = Markov().build(data.n_users, data.n_items)
    model.count(data)
    return Recommender(model, data)


def test_sparse_vectors_score_like_dense_ones(markov: Recommender) -> None:
    sparse = similarity_scorer(markov.scorer)
    vectors = markov.model.item_vectors()
    assert isinstance(sparse.model, SparseItemCosines) and vectors is not None
    dense = Scorer.of(ItemCosines(markov.model, vectors.to_dense()))
    histories = Histories.from_lists([[item] for item in range(1, 151)])
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("error")
        queries, expected = sparse.queries(histories), dense.queries(histories)
        assert torch.allclose(queries, expected)
        for start, stop in [(0, 151), (0, 40), (40, 151), (70, 71)]:
            scores = sparse.score_all(queries, start, stop)
            assert torch.allclose(scores, dense.score_all(expected, start, stop), atol=1e-6)
        items = torch.tensor([[5, 1]]).expand(150, -1)
        assert torch.allclose(sparse.score_items(queries, items), dense.score_items(expected, items), atol=1e-6)


def test_similar_items_are_ordered_by_cosine(markov: Recommender) -> None:
    vectors = markov.model.item_vectors()
    assert vectors is not None
    dense = vectors.to_dense().numpy()
    unit = dense / np.maximum(np.linalg.norm(dense, axis=1, keepdims=True), 1e-30)
    similar = markov.similar([70, 30], k=5)
    for raw in (70, 30):
        cosines = unit @ unit[raw // 10]
        cosines[[0, raw // 10]] = -1
        assert similar.filter(item=raw)["score"].to_list() == pytest.approx(
            np.sort(cosines)[::-1][:5].tolist(), abs=1e-5
        )
