"""Item vectors with content: compared with the equations in float64 NumPy, and the part of items without training."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import segue
from segue.data.tables.table import Table
from segue.errors import ConfigError, StorageError
from segue.models.features import BUCKETS
from segue.models.item_table import ContentTable
from segue.models.registry import MODELS
from tests.helpers import make_dataset
from tests.models import paper

N_ITEMS = 9
COLD = [8, 9]
HISTORIES = [[1, 2, 3, 4], [5, 6, 7, 1, 2], [3, 3, 5], [7, 6, 5, 4, 3, 2], [2, 7]]
CATEGORIES = ["tea", "tea", "cup", None, "cup", "tea", "cup", "tea", "new"]
TAGS = [["a", "b"], ["b"], [], None, ["a"], ["c", "a", "a"], ["c"], ["b", "unseen"], ["a"]]
PRICES = [1.0, 2.0, 3.0, None, 5.0, 5.0, 7.0, 100.0, -1.0]
VECTORS = np.random.default_rng(0).normal(size=(N_ITEMS, 3)).astype(np.float32)
NAMES = ("category", "tags", "price", "vector")
SMALL: dict[str, dict[str, Any]] = {
    "sasrec": {"width": 6, "blocks": 1, "max_length": 4, "dropout": 0.0},
    "ssept": {"item_width": 6, "user_width": 3, "blocks": 1, "max_length": 4, "dropout": 0.0, "loss": "softmax"},
    "gru4rec": {"width": 6, "max_length": 4, "dropout_input": 0.0, "dropout_hidden": 0.0, "negatives": 7},
    "bert4rec": {"width": 6, "blocks": 1, "max_length": 4, "dropout": 0.0},
    "lrurec": {"width": 6, "blocks": 1, "max_length": 4, "dropout": 0.0},
    "hstu": {"width": 6, "blocks": 1, "max_length": 4, "dropout": 0.0},
    "parsrec": {"item_width": 6, "user_width": 2, "dropout": 0.0},
}


def item_table() -> Table:
    frame = pl.DataFrame({"category": CATEGORIES, "tags": TAGS, "price": PRICES, "name": list("abcdefghi")})
    kinds = {"category": "category", "tags": "categories", "price": "number", "name": "text", "vector": "vector"}
    return Table(frame, kinds, "sku", None, {"vector": VECTORS})  # type: ignore[arg-type]


def shop() -> segue.Dataset:
    data = make_dataset(HISTORIES, catalogue=range(1, N_ITEMS + 1))
    sessions = np.arange(len(data.items) + 1)
    return replace(data, item_table=item_table(), session_offsets=sessions)


def content_model(name: str = "sasrec", **settings: Any) -> Any:
    """A prepared model with features and without dropout, with random weights in float64."""
    data = shop()
    config = MODELS[name](**{**SMALL[name], "features": NAMES, "own_dropout": 0.0, **settings}).resolved(data)
    model = config.build(data.n_users, N_ITEMS)
    model.prepare(data)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
    return model.double()


def key(column: str, value: str) -> int:
    digest = hashlib.blake2b(f"{column}\0{value}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def paper_vectors(table: ContentTable) -> np.ndarray:
    """E[i] + the vectors of the item's values + W · (its given vector, scaled), item by item."""
    own, values = table.weight.detach().numpy(), table.value_vectors.detach().numpy()  # type: ignore[union-attr]
    warm = [item for item in range(1, N_ITEMS + 1) if item not in COLD]
    prices = sorted(PRICES[item - 1] for item in warm if PRICES[item - 1] is not None)
    cuts = sorted({prices[int(np.ceil((len(prices) - 1) * part / BUCKETS))] for part in range(1, BUCKETS)})

    def values_of(item: int) -> set[int]:
        found = {key("tags", tag) for tag in TAGS[item - 1] or []}
        if CATEGORIES[item - 1] is not None:
            found.add(key("category", CATEGORIES[item - 1] or ""))
        price = PRICES[item - 1]
        if price is not None:
            found.add(key("price", f"bucket {sum(price >= cut for cut in cuts)}"))
        return found

    known = sorted({one for item in warm for one in values_of(item)})
    scale = 1 / np.sqrt(np.mean([VECTORS[item - 1].astype(float) @ VECTORS[item - 1] for item in warm]))
    projection = table.projection.detach().numpy()  # type: ignore[union-attr]
    vectors = [own[0]]
    for item in range(1, N_ITEMS + 1):
        vector = np.zeros(own.shape[1]) if item in COLD else own[item].copy()
        for value in values_of(item) & set(known):
            vector += values[known.index(value)]
        vectors.append(vector + projection @ (VECTORS[item - 1] * scale))
    return np.stack(vectors)


@pytest.mark.parametrize("name", SMALL)
def test_item_vectors_are_own_vectors_plus_content(name: str) -> None:
    table = content_model(name).items
    expected = paper_vectors(table)
    codes = torch.tensor([[9, 3, 0], [3, 1, 8]])
    for mode in (True, False):
        table.train(mode)
        np.testing.assert_allclose(table.all().detach().numpy(), expected, atol=1e-6)
        np.testing.assert_allclose(table(codes).detach().numpy(), expected[codes.numpy()], atol=1e-6)
    rows = table.train().with_rows(codes, torch.tensor([4])).detach().numpy()
    np.testing.assert_allclose(rows[[0, 1, 3, 4, 8, 9]], expected[[0, 1, 3, 4, 8, 9]], atol=1e-6)
    assert not rows[[2, 5, 6, 7]].any()


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_the_full_softmax_is_among_items_of_training(similarity: str) -> None:
    settings = {"norm": "paper", "frequency": 0.0, "windows": "newest", "temperature": 0.3, "loss": "softmax"}
    model = content_model(similarity=similarity, transitions=False, **settings)
    batch = prepared_batch(model)
    table = paper_vectors(model.items)
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()} | {"items.weight": table}
    inputs = [row[:length].tolist() for row, length in zip(batch.items, batch.lengths, strict=True)]
    hidden = paper.sasrec(weights, paper.left_padded(inputs, 4), 1, "paper", "relu")
    states = np.concatenate([row[4 - len(own) :] for row, own in zip(hidden, inputs, strict=True)])
    warm = table[: N_ITEMS - len(COLD) + 1]
    scores = paper.dot(states, warm) if similarity == "dot" else paper.cosine(states, warm, 0.3)
    assert float(model(batch).detach()) == pytest.approx(paper.full_softmax(scores, batch.targets.numpy()), rel=1e-6)


def prepared_batch(model: Any) -> Any:
    return model.examples(shop()).batch(np.array([3, 0, 2]), np.random.default_rng(3))


LOSSES: list[tuple[str, dict[str, Any]]] = [
    ("sasrec", {"loss": "softmax"}),
    ("sasrec", {"loss": "softmax", "repeats": True, "targets": "session"}),
    ("sasrec", {"loss": "sampled-softmax", "negatives": 8, "in_batch": 0.5, "embedding_l2": 0.1}),
    ("sasrec", {"loss": "sampled-softmax", "negatives": 8, "repeats": True}),
    ("sasrec", {"loss": "bce", "negatives": 3}),
    ("ssept", {"loss": "gbce", "negatives": 2}),
    ("ssept", {"loss": "softmax", "repeats": True}),
    ("gru4rec", {}),
    ("gru4rec", {"repeats": True}),
    ("bert4rec", {"loss": "softmax", "repeats": True}),
    ("lrurec", {"loss": "softmax"}),
    ("hstu", {"loss": "sampled-softmax", "negatives": 8, "repeats": True}),
    ("parsrec", {"loss": "softmax"}),
    ("parsrec", {"loss": "softmax", "repeats": True}),
    ("parsrec", {"loss": "sampled-softmax", "negatives": 6}),
    ("parsrec", {"loss": "sampled-softmax", "negatives": 6, "repeats": True}),
]


@pytest.mark.parametrize(("name", "settings"), LOSSES, ids=str)
def test_the_loss_is_that_of_a_plain_model_with_these_item_vectors(name: str, settings: dict[str, Any]) -> None:
    """Without the items that are not in training: here they are the last ones, so the plain model has fewer items."""
    model = content_model(name, **settings)
    data = shop()
    fewer = make_dataset(HISTORIES, catalogue=range(1, N_ITEMS - len(COLD) + 1))
    fewer = replace(fewer, session_offsets=data.session_offsets)
    plain = replace(model.config, features=None).build(data.n_users, fewer.n_items)
    plain.prepare(fewer)
    plain = plain.double()
    state = {name: tensor for name, tensor in model.state_dict().items() if name in plain.state_dict()}
    for one in ("items.weight", "biases.weight", "repeats.biases.weight"):
        if one in state:
            state[one] = state[one][: fewer.n_items + 1]
    state["items.weight"] = torch.from_numpy(paper_vectors(model.items)[: fewer.n_items + 1])
    state |= {
        name: tensor
        for name, tensor in plain.state_dict().items()
        if name.startswith("transitions.") and name != "transitions.weight"
    }
    plain.load_state_dict(state)
    batches = [
        one.examples(d).batch(np.array([3, 0, 2]), np.random.default_rng(3))
        for one, d in ((model, data), (plain, fewer))
    ]
    if settings.get("loss") == "gbce":
        pytest.skip("the calibration knows the size of the catalogue")
    assert model.train()(batches[0]).item() == pytest.approx(plain.train()(batches[1]).item(), rel=1e-6)


@pytest.mark.parametrize(("name", "settings"), LOSSES, ids=str)
def test_items_without_training_are_no_negatives(name: str, settings: dict[str, Any]) -> None:
    model = content_model(name, **settings)
    examples = model.examples(shop())
    for seed in range(20):
        batch = examples.batch(np.arange(3), np.random.default_rng(seed))
        assert not np.isin(batch.negatives.numpy(), COLD).any()
        assert not np.isin(batch.targets.numpy() if name != "parsrec" else batch.items.numpy(), COLD).any()


def test_own_vectors_are_left_out_at_times() -> None:
    table = content_model(own_dropout=0.5).items.train()
    own, content = table.weight.detach().clone(), paper_vectors(table) - _own_part(table)
    torch.manual_seed(0)
    kept = np.zeros(N_ITEMS + 1)
    for _ in range(400):
        vectors = table(torch.arange(N_ITEMS + 1)).detach().numpy()
        whole = np.isclose(vectors, content + own.numpy(), atol=1e-6).all(1)
        assert (whole | np.isclose(vectors, content, atol=1e-6).all(1)).all()
        kept += whole
    assert kept[0] == 400, "padding has no content, and stays"
    assert (np.abs(kept[1:8] / 400 - 0.5) < 0.1).all() and not kept[COLD].any()
    same = table(torch.tensor([3, 3, 3])).detach()
    assert torch.equal(same[0], same[1]) and torch.equal(same[0], same[2]), "one draw per item and step"


def _own_part(table: ContentTable) -> np.ndarray:
    own = table.weight.detach().numpy().copy()
    own[COLD] = 0
    return own


@pytest.mark.parametrize("name", SMALL)
def test_items_without_training_are_recommended_by_their_content(name: str, tmp_path: Path) -> None:
    data = shop()
    config = MODELS[name](**SMALL[name], features="auto")
    fitted = segue.fit(config, data, training=segue.Training(epochs=2, cpu=True), quiet=True)
    assert fitted.model.config.features == NAMES  # type: ignore[attr-defined]
    lists = fitted.recommend(1, k=N_ITEMS, exclude_seen=False)
    assert sorted(lists["item"]) == list(range(1, N_ITEMS + 1))
    before = fitted.score(1, COLD)
    with torch.no_grad():
        fitted.model.items.weight[COLD] += 100.0  # type: ignore[index,operator,union-attr]
        if name == "gru4rec":
            fitted.model.biases.weight[COLD] += 100.0  # type: ignore[index,operator,union-attr]
    fitted.save(tmp_path / "fitted")
    again = segue.load(tmp_path / "fitted")
    assert again.score(1, COLD).equals(before), "their own vectors do not count"
    assert again.recommend(1, k=N_ITEMS, exclude_seen=False)["item"].to_list() == lists["item"].to_list()


def test_an_item_without_a_row_of_the_table_is_not_recommended() -> None:
    data = shop()
    assert data.item_table is not None
    frame = data.item_table.frame.with_columns(pl.when(pl.int_range(pl.len()) < 8).then(pl.all()))
    vectors = VECTORS.copy()
    vectors[8] = 0
    data = replace(data, item_table=replace(data.item_table, frame=frame, vectors={"vector": vectors}))
    config = MODELS["sasrec"](**SMALL["sasrec"], features="auto")
    fitted = segue.fit(config, data, training=segue.Training(epochs=1, cpu=True), quiet=True)
    assert sorted(fitted.recommend(1, k=N_ITEMS, exclude_seen=False)["item"]) == list(range(1, 9))


@pytest.mark.parametrize("settings", [{"loss": "sampled-softmax", "negatives": 4}, {"loss": "bce", "negatives": 2}])
def test_row_updates_train_as_whole_tables(settings: dict[str, Any]) -> None:
    config = MODELS["sasrec"](**SMALL["sasrec"], **settings, features=NAMES)
    never, always = (
        segue.fit(config, shop(), training=segue.Training(epochs=4, row_updates=how, cpu=True), quiet=True).model
        for how in ("never", "always")
    )
    never, always = never.eval(), always.eval()
    assert torch.allclose(never.items.weight, always.items.weight, atol=1e-5)  # type: ignore[union-attr,arg-type]
    assert torch.allclose(never.items.all(), always.items.all(), atol=1e-5)  # type: ignore[union-attr,operator]


def test_other_tables_are_read_with_the_values_of_training() -> None:
    table = content_model().items
    before = table.all()
    rows = item_table()
    table.read(replace(rows, frame=rows.frame.with_columns(category=pl.lit("never seen"))))
    assert not torch.equal(before, table.all())
    table.read(rows)
    assert torch.equal(before, table.all())


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (("categry",), 'no column "categry"; did you mean'),
        (("name",), 'the column "name" holds text; models read categories, numbers, moments and vectors'),
    ],
)
def test_features_that_cannot_be_read(features: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MODELS["sasrec"](features=features).resolved(shop())


def test_features_need_a_table_that_items_share() -> None:
    plain = make_dataset(HISTORIES)
    with pytest.raises(ConfigError, match="features=auto reads an item table, and this Dataset has none"):
        MODELS["gru4rec"](features="auto").resolved(plain)
    names = Table(pl.DataFrame({"name": list("abcdefg")}), {"name": "text"}, "sku")
    with pytest.raises(ConfigError, match=r"it has none that items share: found name \(text\)"):
        MODELS["gru4rec"](features="auto").resolved(replace(plain, item_table=names))
    assert MODELS["gru4rec"](features=()).resolved(plain).features is None


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("values", 99, "an item has a value that does not exist"), ("offsets", -1, "do not rise from 0")],
)
def test_damaged_features_are_refused(tmp_path: Path, name: str, value: int, message: str) -> None:
    config = MODELS["sasrec"](**SMALL["sasrec"], features="auto")
    fitted = segue.fit(config, shop(), training=segue.Training(epochs=1, cpu=True), quiet=True)
    getattr(fitted.model.items, name)[0] = value
    fitted.save(tmp_path / "fitted")
    with pytest.raises(StorageError, match=message):
        segue.load(tmp_path / "fitted")
