"""Tables of items from files and frames."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pandas as pd
import polars as pl
import pytest

from segue.data.tables.reading import RawTable, key_of, read_table, title_of
from segue.errors import DataError

CSV = 'sku,title,price\n1,"Tea, green",2.5\n2,Milk,1\n'


def written(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


@pytest.mark.parametrize("name", ["p.csv", "p.csv.gz", "p.parquet", "p.json", "p.jsonl", "mapping.json"])
def test_the_same_table_in_every_format(tmp_path: Path, name: str) -> None:
    frame = pl.DataFrame({"sku": ["1", "2"], "title": ["Tea, green", "Milk"], "price": [2.5, 1.0]})
    path = tmp_path / name
    if name == "p.csv.gz":
        path.write_bytes(gzip.compress(CSV.encode()))
    elif name == "p.csv":
        path.write_text(CSV)
    elif name == "p.parquet":
        frame.write_parquet(path)
    elif name == "p.jsonl":
        frame.write_ndjson(path)
    elif name == "p.json":
        path.write_text(json.dumps(frame.to_dicts()))
    else:
        path.write_text(json.dumps({row.pop("sku"): row for row in frame.to_dicts()}))
    table = read_table(path, "item")
    assert table.frame.columns[1:] == ["title", "price"]
    assert table.frame["title"].to_list() == ["Tea, green", "Milk"]
    assert [float(price) for price in table.frame["price"]] == [2.5, 1.0]
    assert table.frame.to_series(0).to_list() == ["1", "2"]


def test_attributes_by_item(tmp_path: Path) -> None:
    table = read_table(written(tmp_path / "a.json", '{"4": [1, 2], "83": []}'), "item")
    assert table.frame.to_dict(as_series=False) == {"item": ["4", "83"], "attributes": [[1, 2], []]}


def test_types_of_recbole_files(tmp_path: Path) -> None:
    text = "item_id:token\tmovie_title:token_seq\tclass:token_seq\tprice:float\n1\tToy Story\tComedy Drama\t2\n"
    table = read_table(written(tmp_path / "m.item", text), "item")
    assert table.kinds == {
        "item_id": "category",
        "movie_title": "categories",
        "class": "categories",
        "price": "number",
    }
    assert table.blanks


def test_frames_of_other_libraries() -> None:
    table = read_table(pd.DataFrame({"sku": [1, 2], "price": [2.5, None]}), "item")
    assert table.frame["price"].to_list()[0] == 2.5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no rows|is empty"),
        ("sku,price\n", "holds no rows"),
        ("sku,price\n1,2\n2,3,4\n", "line 3: expected 2 fields"),
        ("{not json", "is no JSON"),
        ('{"sku": 1}\nnot json\n', "line 2: no JSON"),
        ('[{"sku": 1, "price": 2}, {"sku": 2, "price": "a"}]', '"price" mixes values of the types int, str'),
        ('{"4": [1, "a"], "5": [2]}', '"attributes" mixes values of the types int, str'),
        ("[1, 2]", "expected JSON objects"),
    ],
)
def test_files_that_are_no_tables(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_table(written(tmp_path / "t.txt", content), "item")


def test_a_missing_file() -> None:
    with pytest.raises(DataError, match="no such file"):
        read_table("nowhere.csv", "item")


def table_of(*columns: str) -> RawTable:
    return RawTable("products", pl.DataFrame({column: ["x"] for column in columns}))


def test_the_key_is_given_or_named_as_in_the_log_or_as_usual() -> None:
    table = table_of("sku", "visitor", "price")
    assert key_of(table, "price", "item", "sku", "item_key") == "price"
    assert key_of(table, None, "item", "visitor", "item_key") == "visitor"
    assert key_of(table, None, "item", "article", "item_key") == "sku"
    with pytest.raises(DataError, match=r'no column "skuu".*did you mean "sku"'):
        key_of(table, "skuu", "item", "item", "item_key")
    with pytest.raises(DataError, match=r"no column is named like one .*Name it with item_key"):
        key_of(table_of("a", "b"), None, "item", "item", "item_key")
    with pytest.raises(DataError, match="it could be sku or product_id"):
        key_of(table_of("sku", "product_id"), None, "item", "item", "item_key")


def test_the_title_is_given_or_named_as_usual() -> None:
    assert title_of(table_of("sku", "movie_title"), None, "sku", "title") == "movie_title"
    assert title_of(table_of("sku", "price"), None, "sku", "title") is None
    assert title_of(table_of("sku", "price"), "price", "sku", "title") == "price"
    with pytest.raises(DataError, match='no column "titel"'):
        title_of(table_of("sku", "title"), "titel", "sku", "title")
