"""Kinds of columns: recognized from values, and converted or refused."""

from __future__ import annotations

from datetime import date, datetime

import numpy as np
import polars as pl
import pytest

from segue.data.tables.kinds import converted, recognized
from segue.errors import DataError


def kind_of(column: pl.Series, *, untyped: bool = False, title: bool = False) -> str:
    return recognized(column, None, untyped=untyped, is_title=title, table="products")


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pl.Series("name", ["green tea", "black tea", "milk"]), "text"),
        (pl.Series("category", ["tea", "tea", "milk"]), "category"),
        (pl.Series("in_stock", [True, None]), "category"),
        (pl.Series("brand", ["a", "b"], dtype=pl.Categorical), "category"),
        (pl.Series("manufacturer_id", [69, 70]), "category"),
        (pl.Series("manufacturerId", [69, 70]), "category"),
        (pl.Series("paid", [69, 70]), "number"),
        (pl.Series("price", [1.5, None]), "number"),
        (pl.Series("genres", [["a", "b"], []]), "categories"),
        (pl.Series("attributes", [[1, 2], [3]]), "categories"),
        (pl.Series("genres", ["a|b", "b|c", "a", None]), "categories"),
        (pl.Series("vector", [[0.5, 1.0], None]), "vector"),
        (pl.Series("vector", [[1, 2]], dtype=pl.Array(pl.Int32, 2)), "vector"),
        (pl.Series("launched", [date(2024, 1, 1)]), "moment"),
        (pl.Series("launched", ["2024-01-01", "2024-01-01T12:00"]), "moment"),
        (pl.Series("nothing", [None, None]), "category"),
    ],
)
def test_kinds_are_recognized(column: pl.Series, kind: str) -> None:
    assert kind_of(column) == kind


def test_text_of_an_untyped_file_may_be_a_number_but_not_with_leading_zeros() -> None:
    assert kind_of(pl.Series("price", ["1.5", "2", "n/a", ""]), untyped=True) == "number"
    assert kind_of(pl.Series("zip", ["01234", "01234"]), untyped=True) == "category"
    assert kind_of(pl.Series("size", ["1", "2"])) == "text"


def test_a_column_of_mixed_types_is_refused_with_the_way_out() -> None:
    mixed = pl.Series("price", [*map(str, range(20)), "cheap"])
    with pytest.raises(DataError, match=r'"price" mixes numbers \(0, …\) with other values \(\'cheap\'; 1 of 21\)'):
        kind_of(mixed, untyped=True)


def test_a_type_that_is_no_kind_is_refused() -> None:
    with pytest.raises(DataError, match='column "box" has the type Struct'):
        kind_of(pl.Series("box", [{"a": 1}]))


def values(column: pl.Series, kind: str, *, untyped: bool = False, blanks: bool = False) -> list[object]:
    result = converted(column, kind, untyped=untyped, blanks=blanks, table="products")  # type: ignore[arg-type]
    return result.tolist() if isinstance(result, np.ndarray) else result.to_list()


def test_values_are_converted_to_the_type_of_their_kind() -> None:
    assert values(pl.Series("price", ["1", "2", "NA"]), "number", untyped=True) == [1, 2, None]
    assert values(pl.Series("price", ["1.5", "2", ""]), "number", untyped=True) == [1.5, 2.0, None]
    assert values(pl.Series("price", [1.5, float("nan")]), "number") == [1.5, None]
    assert values(pl.Series("maker_id", ["7", "8"]), "category", untyped=True) == [7, 8]
    assert values(pl.Series("genres", ["a|b ", "", None]), "categories") == [["a", "b"], [], None]
    assert values(pl.Series("genres", ["a b", "c"]), "categories", blanks=True) == [["a", "b"], ["c"]]
    assert values(pl.Series("genres", [[1, None, 2], None]), "categories") == [["1", "2"], None]
    day = datetime(2024, 1, 1)
    assert values(pl.Series("t", ["2024-01-01", "2024-01-01 00:00:00", None]), "moment") == [day, day, None]
    zoned = pl.Series("t", ["2024-01-01T01:00:00+01:00"]).str.to_datetime(time_zone="Europe/Berlin")
    assert values(zoned, "moment") == [day]
    assert values(pl.Series("v", [[0.5, 1.0], None]), "vector") == [[0.5, 1.0], [0.0, 0.0]]
    assert values(pl.Series("v", ["[0.5, 1]", "2 3"]), "vector", untyped=True) == [[0.5, 1.0], [2.0, 3.0]]


@pytest.mark.parametrize(
    ("column", "kind", "message"),
    [
        (
            pl.Series("v", [[1.0, 2.0], [1.0, 2.0], [1.0]]),
            "vector",
            "unequal length: 2 numbers in most rows, 1 in row 3",
        ),
        (pl.Series("v", [[1.0, 2.0], [1.0, float("nan")]]), "vector", "1 numbers that are missing, NaN or infinite, f"),
        (pl.Series("v", [[1.0], [None]]), "vector", "first in row 2"),
        (pl.Series("v", ["[1, x]"]), "vector", "expected numbers, as in"),
        (pl.Series("v", ["a"]), "number", "'a' is none"),
        (pl.Series("v", [float("inf")]), "number", "infinite"),
        (pl.Series("v", ["soon", "2024-01-01"]), "moment", "'soon' is none"),
        (pl.Series("v", [["a"]]), "text", "holds lists"),
    ],
)
def test_values_that_do_not_fit_their_kind_are_refused(column: pl.Series, kind: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        values(column, kind, untyped=True)
