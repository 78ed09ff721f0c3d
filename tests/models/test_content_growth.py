"""Models that read the item table go on with more items, values and interactions."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch

import segue
from segue.errors import ConfigError
from segue.models.item_table import ContentTable

KINDS = ["tea", "milk", "salt", "nails"]
PRODUCTS = pl.DataFrame(
    {
        "item": list(range(1, 13)),
        "kind": [KINDS[item % 4] for item in range(12)],
        "price": [float(item * item) for item in range(12)],
        "vector": pl.Series(np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)),
    }
)
MODELS = [
    segue.SASRec(width=8, blocks=1, negatives=4, features="auto"),
    segue.SSEPT(user_width=4, item_width=4, blocks=1, features="auto"),
    segue.GRU4Rec(width=8, features="auto"),
    segue.HSTU(width=8, features="auto"),
    segue.BERT4Rec(width=8, features="auto"),
    segue.LRURec(width=8, features="auto"),
    segue.PARSRec(features="auto"),
]


def log(items: int, users: int, start: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(items)
    return pl.DataFrame(
        {
            "user": np.repeat(np.arange(users), 8),
            "item": rng.integers(1, items + 1, 8 * users),
            "time": start + np.tile(np.arange(8), users),
            "session": np.tile(np.arange(8) // 2, users) + start,
        }
    )


def tables(recommender: segue.Recommender) -> ContentTable:
    (table,) = (part for part in recommender.model.modules() if isinstance(part, ContentTable))
    return table.eval()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("config", MODELS, ids=lambda config: config.name)
def test_training_goes_on_with_the_values_of_new_items(config: segue.ModelConfig) -> None:
    """Training goes on from the content of the former model; a value that it does not know is new."""
    data = segue.prepare(log(6, 20).filter(pl.col("item") % 4 != 0), items=PRODUCTS)
    training = segue.Training(epochs=1, cpu=True, metric="ndcg@5")
    monday = segue.fit(config, segue.leave_last_out(data), training=training, quiet=True)
    grown = data.append(log(12, 22, start=100))
    start = tables(monday)
    still = segue.Training(epochs=1, cpu=True, learning_rate=1e-12, averaging=0.0, metric="ndcg@5")
    tuesday = segue.fit(config, segue.leave_last_out(grown), training=still, start=monday, quiet=True)
    table = tables(tuesday)
    assert len(table.keys) > len(start.keys)
    assert torch.equal(table.edges, start.edges) and torch.equal(table.scales, start.scales)
    places = torch.searchsorted(table.keys, start.keys)
    assert torch.equal(table.keys[places], start.keys)
    assert table.value_vectors is not None and start.value_vectors is not None
    assert torch.allclose(table.value_vectors[places], start.value_vectors, atol=1e-6)
    assert table.projection is not None and start.projection is not None
    assert torch.allclose(table.projection, start.projection, atol=1e-6)
    new = np.setdiff1d(np.arange(len(table.keys)), places.numpy())
    assert float(table.value_vectors[new].detach().abs().max()) < 1e-6


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("config", MODELS, ids=lambda config: config.name)
def test_a_new_product_is_recommended_from_its_row(config: segue.ModelConfig) -> None:
    """Without training, a product that arrives with a row is scored by its content; one without a row is not."""
    data = segue.prepare(log(8, 20), items=PRODUCTS[:8])
    training = segue.Training(epochs=1, cpu=True, metric="ndcg@5")
    monday = segue.fit(config, segue.leave_last_out(data), training=training, quiet=True)
    twin = PRODUCTS[1:2].with_columns(item=pl.lit(99, pl.Int64))
    more = segue.prepare(log(8, 20), items=pl.concat([PRODUCTS[:8], twin]))
    tuesday = monday.with_data(more.with_items([77]))
    vectors = tables(tuesday).all()
    code = tuesday.dataset.catalogue.code_of(99)
    content = tables(monday).all()[2] - tables(monday).weight[2]
    assert torch.allclose(vectors[code], content, atol=1e-6)
    assert torch.allclose(vectors[:9], tables(monday).all(), atol=1e-6)
    lists = tuesday.recommend([0], k=10, exclude_seen=False)["item"].to_list()
    assert 99 in lists and 77 not in lists
    with pytest.raises(ConfigError, match="no item table"):
        monday.with_data(segue.prepare(log(8, 20)))
    with pytest.raises(ConfigError, match="no column kind of the kind category"):
        monday.with_data(segue.prepare(log(8, 20), items=PRODUCTS.drop("kind")))


def test_similar_items_of_content_neighbours_are_those_with_similar_content() -> None:
    recommender = segue.fit(
        segue.ContentNeighbours(features=("kind", "vector")), segue.prepare(log(12, 9), items=PRODUCTS)
    )
    alike = recommender.similar([1, 2], k=11).sort("item", "similar")
    kinds = PRODUCTS["kind"].to_numpy()
    vectors = np.stack(PRODUCTS["vector"].to_list()).astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for item in (1, 2):
        cosines = ((kinds == kinds[item - 1]) + vectors @ vectors[item - 1]) / 2  # each of the two parts has length 1
        expected = {other: cosines[other - 1] for other in range(1, 13) if other != item}
        rows = alike.filter(pl.col("item") == item)
        assert dict(rows.select("similar", "score").rows()) == pytest.approx(expected, abs=1e-6)
