"""Tables joined to a Dataset: order of the codes, cold items, storage, and bad input."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import segue
from segue.data.dataset import Dataset
from segue.errors import ConfigError, DataError, StorageError

LOG = pl.DataFrame(
    {"user": ["a", "a", "b", "b", "b"], "item": ["milk", "tea", "tea", "wine", "milk"], "time": [1, 2, 1, 2, 3]}
)
PRODUCTS = pl.DataFrame(
    {
        "item": ["soap", "tea", "milk", "axe"],
        "title": ["Soap", "Green tea", None, "Axe"],
        "price": [2.0, 3.5, 1.0, 20.0],
        "genres": [["bath"], ["drink", "hot"], ["drink"], []],
        "vector": [[1.0, 0.0], [0.0, 1.0], None, [1.0, 1.0]],
    }
)


def shop(**options: Any) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return segue.prepare(LOG, items=PRODUCTS, **options)


def test_rows_are_in_the_order_of_the_codes_and_new_items_come_last() -> None:
    data = shop()
    assert data.catalogue.ids.to_list() == ["milk", "tea", "wine", "soap", "axe"]
    assert data.items_frame["item"].to_list() == data.catalogue.ids.to_list()
    assert data.items_frame["price"].to_list() == [1.0, 3.5, None, 2.0, 20.0]
    assert data.items_frame["vector"].to_list() == [None, [0.0, 1.0], None, [1.0, 0.0], [1.0, 1.0]]
    assert data.titles is not None and data.titles.to_list() == [None, "Green tea", None, "Soap", "Axe"]
    assert data.cold_items.tolist() == [4, 5]
    assert data.item_table is not None
    assert data.item_table.kinds == {
        "title": "text",
        "price": "number",
        "genres": "categories",
        "vector": "vector",
    }
    assert data.item_table.described.tolist() == [True, True, False, True, True]
    assert data.item_counts().tolist() == [0, 2, 2, 1, 0, 0]
    assert data.to_frame().rows() == segue.prepare(LOG).to_frame().rows()
    note = data.metadata["item_table"]
    assert (note["rows"], note["matched"], note["without_row"], note["cold"], note["left_out"]) == (4, 2, 1, 2, 0)


def test_without_a_table_there_are_only_ids() -> None:
    data = segue.prepare(LOG)
    assert data.items_frame.to_dict(as_series=False) == {"item": ["milk", "tea", "wine"]}
    assert data.users_frame.to_dict(as_series=False) == {"user": ["a", "b"]}
    assert data.titles is None and data.item_table is None and not len(data.cold_items)


def test_items_that_the_filters_drop_become_cold_and_known_leaves_them_out() -> None:
    filtered = shop(min_per_item=2)
    assert filtered.catalogue.ids.to_list() == ["milk", "tea", "soap", "axe"]
    log = pl.concat([LOG, pl.DataFrame({"user": ["a"], "item": ["axe"], "time": [9]})])
    assert segue.prepare(log, items=PRODUCTS, min_per_item=2).catalogue.ids.to_list() == ["milk", "tea", "soap", "axe"]
    known = shop(table_items="known")
    assert known.catalogue.ids.to_list() == ["milk", "tea", "wine"]
    assert known.metadata["item_table"]["left_out"] == 2


def test_users_of_a_table_who_are_not_in_the_log_are_left_out() -> None:
    people = pl.DataFrame({"customer": ["b", "zoe"], "age": [30, 40]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = segue.prepare(LOG, users=people, user_key="customer")
    assert data.users_frame.to_dict(as_series=False) == {"user": ["a", "b"], "age": [None, 30]}
    assert data.metadata["user_table"]["left_out"] == 1


def test_ids_of_another_type_are_read_as_those_of_the_log() -> None:
    log = LOG.with_columns(item=pl.Series([1, 2, 2, 3, 1]))
    table = pl.DataFrame({"item": ["1", "3", "9"], "price": [1, 2, 3]})
    assert segue.prepare(log, items=table).items_frame["price"].to_list() == [1, None, 2, 3]
    numbers = pl.DataFrame({"item": [1, 3, 9], "price": [1, 2, 3]})
    as_text = log.with_columns(pl.col("item").cast(pl.String))
    assert segue.prepare(as_text, items=numbers).items_frame["price"].to_list() == [1, None, 2, 3]
    with pytest.raises(DataError, match=r'the key "item" holds \'x\' \(1 of 3 keys\), and the ids of the log are int'):
        segue.prepare(log, items=pl.DataFrame({"item": ["1", "2", "x"], "price": [1, 2, 3]}))


@pytest.mark.parametrize("out", [False, True])
def test_a_folder_holds_the_tables(tmp_path: Path, out: bool) -> None:
    people = pl.DataFrame({"user": ["b"], "age": [30]})
    data = shop(users=people, out=tmp_path / "data") if out else shop(users=people)
    data.save(tmp_path / "data")
    opened = Dataset.open(tmp_path / "data")
    assert opened.items_frame.equals(data.items_frame) and opened.users_frame.equals(data.users_frame)
    assert opened.fingerprint == data.fingerprint != segue.prepare(LOG).fingerprint
    assert opened.item_table is not None
    assert isinstance(opened.item_table.vectors["vector"].base, np.memmap)
    assert json.loads((tmp_path / "data" / "dataset.json").read_text())["format_version"] == 3
    segue.prepare(LOG).save(tmp_path / "plain")
    assert json.loads((tmp_path / "plain" / "dataset.json").read_text())["format_version"] == 1


def test_views_keep_the_tables() -> None:
    data = shop()
    train = segue.leave_last_out(data).train
    assert train.items_frame.equals(data.items_frame)
    assert train.cold_items.tolist() == [4, 5]


@pytest.mark.parametrize("file", ["item_table.parquet", "item_vectors_0.npy"])
def test_a_damaged_table_is_found(tmp_path: Path, file: str) -> None:
    shop().save(tmp_path / "data")
    path = tmp_path / "data" / file
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(StorageError, match=file):
        Dataset.open(tmp_path / "data")
    path.unlink()
    with pytest.raises(StorageError, match=file):
        Dataset.open(tmp_path / "data")


@pytest.mark.parametrize(
    "change",
    [
        {"tables": {}},
        {"tables": {"item_table": {}}},
        {"tables": {"other": {}}},
        {"tables": []},
    ],
)
def test_a_manifest_that_does_not_describe_its_tables_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    shop().save(tmp_path / "data")
    manifest = tmp_path / "data" / "dataset.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | change))
    with pytest.raises(StorageError, match="does not describe"):
        Dataset.open(tmp_path / "data")


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        (
            {"sku": ["x"], "a": [1]},
            {},
            "none of its 1 keys is an item of the log.*look like 'x', ids of the log like 'mi",
        ),
        ({"item": ["tea", "tea"], "a": [1, 2]}, {}, "not unique: 1 ids occur in several rows, such as 'tea'"),
        ({"item": ["tea", None], "a": [1, 2]}, {}, "missing in 1 rows, first in row 2"),
        ({"item": ["tea"]}, {}, "no column beside the key"),
        ({"sku": ["tea"], "item": [1]}, {"item_key": "sku"}, "rename the column"),
        ({"item": ["tea"], "a": [1]}, {"item_kinds": {"b": "text"}}, 'names the column "b"'),
        ({"item": ["tea"], "a": [1]}, {"item_kinds": {"a": "txt"}}, 'unknown kind "txt".*did you mean "text"'),
        ({"item": ["tea", "milk"], "a": [[1.0], [1.0, 2.0]]}, {}, "unequal length"),
    ],
)
def test_bad_tables(table: dict[str, Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        segue.prepare(LOG, items=pl.DataFrame(table), **options)


def test_few_matches_are_said() -> None:
    with pytest.warns(UserWarning, match=r"has a row for 1 of 3 items of the log \(33.3%\)"):
        segue.prepare(LOG, items=pl.DataFrame({"item": ["tea"], "price": [1]}))


def test_options_of_a_table_need_the_table() -> None:
    with pytest.raises(ConfigError, match="title describes a table: pass the table as items="):
        segue.prepare(LOG, title="name")


@pytest.mark.realdata
def test_real_tables(real_data: Path) -> None:
    folder = real_data
    films = segue.prepare(f"{folder}/ml-100k/u.data", items=f"{folder}/ml-100k/ml-100k.item")
    assert films.item_table is not None and films.item_table.title == "movie_title"
    assert films.items_frame.row(0) == (1, "Toy Story", "1995", ["Animation", "Children's", "Comedy"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        beauty = segue.prepare(
            f"{folder}/amazon-beauty/Beauty.txt",
            format="user-lines",
            items=f"{folder}/amazon-beauty/Beauty_item2attributes.json",
        )
    assert beauty.item_table is not None and beauty.item_table.kinds == {"attributes": "categories"}
    assert beauty.metadata["item_table"]["matched"] == 12_101
    journey = segue.prepare(
        pl.read_parquet(f"{folder}/complete-journey/transactions.parquet").head(100_000),
        user="household_id",
        item="product_id",
        time="transaction_timestamp",
        items=f"{folder}/complete-journey/products.parquet",
        users=f"{folder}/complete-journey/demographics.parquet",
    )
    assert journey.item_table is not None and set(journey.item_table.kinds.values()) == {"category"}
    assert journey.n_items >= 92_331 and len(journey.cold_items) > 60_000
