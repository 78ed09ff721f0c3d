"""Conditions on the item table: SQL, lists as sets, dates, and everything that is refused."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import polars as pl
import pytest

from segue.data.tables.table import Table
from segue.errors import ConfigError
from segue.inference.asking.conditions import condition_mask
from segue.inference.asking.preferences import Preferences

TABLE = Table(
    pl.DataFrame(
        {
            "category": ["tea", "milk", None, "tea"],
            "price": [2.5, 1.0, 30.0, None],
            "genres": pl.Series([["a", "b"], ["c"], [], None], dtype=pl.List(pl.String)),
            "launched": [datetime(2024, 1, 1), datetime(2024, 6, 1, 12), None, datetime(2023, 1, 1)],
            "in stock": [True, False, None, True],
            "maker_id": [7, 8, 7, None],
        }
    ),
    {
        "category": "category",
        "price": "number",
        "genres": "categories",
        "launched": "moment",
        "in stock": "category",
        "maker_id": "category",
        "vector": "vector",
    },
    "sku",
    vectors={"vector": np.zeros((4, 2), dtype=np.float32)},
)
IDS = pl.Series([10, 20, 30, 40])


@pytest.mark.parametrize(
    ("where", "codes"),
    [
        ("category = 'tea'", [1, 4]),
        ("category <> 'tea'", [2]),
        ("NOT category = 'tea'", [2]),
        ("price < 20 AND category = 'tea'", [1]),
        ("price < 20 OR category = 'tea'", [1, 2, 4]),
        ("category IN ('tea', 'milk')", [1, 2, 4]),
        ("category IS NULL", [3]),
        ("price BETWEEN 1 AND 3", [1, 2]),
        ("price * 2 + 1 > 6 - 1", [1, 3]),
        ("category LIKE 't%'", [1, 4]),
        ("upper(category) = 'TEA'", [1, 4]),
        ("coalesce(price, 0) = 0", [4]),
        ("genres = 'a'", [1]),
        ("genres != 'a'", [2, 3]),
        ("genres IN ('a', 'c')", [1, 2]),
        ("genres NOT IN ('a', 'c')", [3]),
        ("NOT genres IN ('b')", [2, 3]),
        ("array_length(genres) > 1", [1]),
        ("genres IS NULL", [4]),
        ("launched >= '2024-01-01'", [1, 2]),
        ("launched > '2024-06-01T11:30'", [2]),
        ("launched < DATE '2024-01-01'", [4]),
        ('"in stock"', [1, 4]),
        ('"in stock" AND price > 2', [1]),
        ("maker_id = 7", [1, 3]),
        ("item >= 30", [3, 4]),
        ("category = 'it''s'", []),
        ("TRUE", [1, 2, 3, 4]),
    ],
)
def test_conditions(where: str, codes: list[int]) -> None:
    assert np.flatnonzero(condition_mask(where, TABLE, IDS)).tolist() == codes


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("", "condition of 1 to"),
        ("price <", "is no condition on the item table"),
        ("price", "gives Float64, expected true or false"),
        ("category", "gives String"),
        ("prise < 2", 'names "prise".*did you mean "price"'),
        ('category = "tea"', 'names "tea", which is no column .*single quotes'),
        ("price < 'cheap'", "is no condition on the item table"),
        ("read_csv('x') = 1", r"calls read_csv\(…\), which is not allowed"),
        ("sum(price) > 1", r"calls sum\(…\)"),
        ("count(*) > 1", r"calls count\(…\)"),
        ("price IN (SELECT 1)", 'names "SELECT"'),
        ("EXISTS (SELECT 1)", r"calls EXISTS\(…\)"),
        ("price > 1; DROP TABLE x", "'; DROP TAB' is not understood"),
        ("price > 1 -- more", "'-- more' is not understood"),
        ("price > 1 /* more", "is not understood"),
        ("price.x = 1", "is not understood|names"),
        ("vector = 1", "a column of vectors"),
        ("genres LIKE 'a%'", "genres holds several categories; compare it as in genres = 'a'"),
        ("genres = category", "holds several categories"),
        ("(" * 60 + "price > 1" + ")" * 60, "60 brackets within each other"),
        ("price > 1 OR " * 400 + "TRUE", "condition of 1 to 4,000 characters"),
        ("'", "is not understood"),
        ("price > 1 OVER (price)", r"calls OVER\(…\)"),
    ],
)
def test_bad_conditions(where: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        condition_mask(where, TABLE, IDS)


def test_a_condition_needs_a_table() -> None:
    with pytest.raises(ConfigError, match="needs a table of items"):
        condition_mask("price > 1", None, IDS)


def test_boosts_and_conditions_are_one_number_per_item_and_are_kept() -> None:
    rules = Preferences(TABLE, IDS)
    offset = rules.offset("price < 20", {"category": {"tea": 0.5}, "genres": {"b": 0.25, "c": -1}})
    assert offset is not None and offset.tolist() == [-np.inf, 0.75, -1.0, -np.inf, -np.inf]
    assert rules.offset("price < 20", {"category": {"tea": 0.5}, "genres": {"b": 0.25, "c": -1}}) is offset
    assert rules.offset(None, None) is None
    numbers = rules.offset(None, {"maker_id": {7: 1}, "in stock": {True: 2}})
    assert numbers is not None and numbers.tolist() == [0, 3, 0, 1, 2]


@pytest.mark.parametrize(
    ("boost", "message"),
    [
        ({"category": {"teaa": 1}}, 'no item has \'teaa\' in "category"; did you mean "tea"'),
        ({"categori": {"tea": 1}}, '"categori" is no column of the item table: did you mean "category"'),
        ({"price": {2: 1}}, '"price" is of kind number, not of categories'),
        ({"category": {"tea": float("nan")}}, "expected a finite number"),
        ({"category": {"tea": "1"}}, "expected a finite number"),
        ({"category": 1}, "expected numbers by value"),
        ([1], "expected numbers by column and category"),
    ],
)
def test_bad_boosts(boost: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Preferences(TABLE, IDS).offset(None, boost)  # type: ignore[arg-type]


def test_numbers_of_categories() -> None:
    rules = Preferences(TABLE, IDS)
    assert rules.values("category", "at_most").tolist() == [[0], [2], [1], [0], [2]]
    assert rules.values("genres", "at_most").tolist() == [[0, 0], [1, 2], [3, 0], [0, 0], [0, 0]]
