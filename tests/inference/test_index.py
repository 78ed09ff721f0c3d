"""Approximate search: recall, exact exclusion, further candidates, and folders of indexes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import segue
from segue.errors import ConfigError, StorageError
from segue.inference.index import ItemIndex, best_of
from segue.inference.scoring.indexed import top_k_by_index
from segue.inference.scoring.ranking import top_k
from tests.helpers import make_dataset

pytest.importorskip("usearch")

ITEMS, USERS = 3_000, 60


def made(config: Any) -> segue.Recommender:
    """Recommender with random weights for a large catalogue."""
    rng = np.random.default_rng(1)
    rows = [rng.integers(1, ITEMS + 1, rng.integers(1, 30)).tolist() for _ in range(USERS)]
    data = make_dataset(rows, catalogue=range(1, ITEMS + 1))
    torch.manual_seed(0)
    model = config.resolved(data).build(data.n_users, data.n_items)
    model.prepare(data)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return segue.Recommender(model, data)


@pytest.fixture(scope="module")
def indexed() -> tuple[segue.Recommender, ItemIndex]:
    recommender = made(segue.SASRec(width=16, blocks=1, max_length=10, repeats=False))
    return recommender, recommender.build_index(sample=USERS, threads=1)


@pytest.mark.parametrize(
    "config",
    [
        segue.SASRec(width=16, blocks=1, max_length=10, repeats=False),
        segue.SASRec(width=16, blocks=1, max_length=10, transitions=True),
        segue.SASRec(width=16, blocks=1, max_length=10, similarity="dot", loss="softmax", repeats=True),
        segue.SSEPT(item_width=12, user_width=4, blocks=1, max_length=10, repeats=False),
        segue.GRU4Rec(width=16, max_length=10, repeats=False),
    ],
    ids=["cosine", "transitions", "dot-repeats", "ssept", "gru4rec"],
)
def test_lists_by_the_index_are_nearly_the_exact_ones(config: Any) -> None:
    recommender = made(config)
    index = recommender.build_index(sample=USERS, threads=1)
    assert index.recall >= 0.98
    histories = recommender.dataset.histories(np.arange(1, USERS + 1))
    for hidden in (None, histories):
        exact = top_k(recommender.scorer, histories, 10, exclude_seen=hidden is not None)
        codes, scores = top_k_by_index(recommender.scorer, index, histories, 10, seen=hidden)
        assert (exact[0][:, :, None] == codes[:, None, :]).any(2).mean() >= 0.98
        same = exact[0] == codes
        np.testing.assert_allclose(scores[same], exact[1][same], rtol=1e-4, atol=1e-4)
        assert (np.diff(scores, axis=1) <= 0).all()
        if hidden is not None:
            rows, items = histories.seen()
            assert not np.isin(np.arange(USERS)[:, None] * (ITEMS + 1) + codes, rows * (ITEMS + 1) + items).any()


def test_rules_are_exact(indexed: tuple[segue.Recommender, ItemIndex]) -> None:
    recommender, index = indexed
    few = list(range(5, 3_000, 400))
    for options in (
        {"allow": few, "k": 5},
        {"allow": few, "k": 20},
        {"allow": {1: few, 2: [7]}, "k": 3},
        {"deny": {1: list(range(1, 2_900))}, "k": 20},
        {"k": 1_000},
    ):
        exact = recommender.recommend([1, 2, 3], **options)  # type: ignore[arg-type]
        near = recommender.recommend([1, 2, 3], index=index, **options)  # type: ignore[arg-type]
        assert len(near) == len(exact)
        both = exact.select("user", "item").join(near, on=["user", "item"])
        assert len(both) >= 0.9 * len(exact)
        allowed = options.get("allow")
        if isinstance(allowed, list):
            assert set(near["item"]) <= set(allowed)
        elif allowed is not None:
            assert near.filter(pl.col("user") == 2)["item"].to_list() == [7]
    denied = recommender.recommend(1, index=index, deny=list(range(1, 2_900)))
    assert denied["item"].min() >= 2_900  # type: ignore[operator]


def test_an_index_of_other_vectors_or_with_a_boost_is_refused(
    indexed: tuple[segue.Recommender, ItemIndex], tmp_path: Path
) -> None:
    recommender, index = indexed
    other = made(segue.GRU4Rec(width=16, max_length=10, repeats=False))
    with pytest.raises(ConfigError, match="other item vectors"):
        other.recommend([1], index=index)
    with pytest.raises(ConfigError, match="other item vectors"):
        other.to_onnx(tmp_path / "out", index=index)
    offset = np.zeros(ITEMS + 1, dtype=np.float32)
    offset[5] = 1
    with pytest.raises(ConfigError, match="boost"):
        top_k_by_index(recommender.scorer, index, recommender.dataset.histories(np.array([1])), 3, offset=offset)
    with pytest.raises(ConfigError, match="2 or more"):
        recommender.build_index(sample=1)
    counting = segue.fit(segue.Markov(), make_dataset([[1, 2, 3], [2, 3]]), quiet=True)
    with pytest.raises(ConfigError, match="nothing to index"):
        counting.build_index()


def test_an_index_is_saved_and_opened(indexed: tuple[segue.Recommender, ItemIndex], tmp_path: Path) -> None:
    recommender, index = indexed
    opened = ItemIndex.open(index.save(tmp_path / "index"))
    assert repr(opened) == repr(index)
    expected = recommender.recommend([1, 2, 3], index=index)
    assert recommender.recommend([1, 2, 3], index=opened).equals(expected)
    with pytest.raises(StorageError, match="overwrite=False"):
        index.save(tmp_path / "index", overwrite=False)
    (tmp_path / "index" / "graph.usearch").write_bytes(b"nothing")
    with pytest.raises(StorageError, match="truncated"):
        ItemIndex.open(tmp_path / "index")
    with pytest.raises(StorageError, match=r"no index\.json"):
        ItemIndex.open(tmp_path)


def test_the_best_of_candidates() -> None:
    codes = np.array([[4, 2, 9, 0], [0, 0, 3, 0]])
    scores = np.array([[1, 1, 2, -np.inf], [-np.inf, -np.inf, 5, -np.inf]], dtype=np.float32)
    best, values = best_of(codes, scores, 5)
    assert best.tolist() == [[9, 2, 4, 0, 0], [3, 0, 0, 0, 0]]
    assert values[0].tolist() == [2, 1, 1, -np.inf, -np.inf]
