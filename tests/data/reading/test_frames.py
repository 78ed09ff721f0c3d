from __future__ import annotations

import datetime as dt
import uuid

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from segue.data.reading.read import read
from segue.errors import ColumnError, ConfigError, DataError

TABLE = {"user": [3, 1, 3], "item": ["b", "a", "c"], "time": [5, 6, 7], "rating": [1.0, 2.0, 3.0]}
ROWS = [(3, "b", 5, 1.0), (1, "a", 6, 2.0), (3, "c", 7, 3.0)]


def of_duckdb(table):
    frame = pl.DataFrame(table)  # noqa: F841 - found by name
    return duckdb.sql("select * from frame")


@pytest.mark.parametrize(
    "make",
    [pl.DataFrame, pl.LazyFrame, pd.DataFrame, pa.table, of_duckdb],
    ids=["polars", "polars lazy", "pandas", "arrow", "duckdb"],
)
def test_frames_of_all_libraries(make):
    log = read(make(TABLE))
    assert log.format == "frame"
    assert log.collect().rows() == ROWS
    assert log.collect().schema["rating"] == pl.Float32


def test_pandas_integers_that_became_floats():
    frame = pd.DataFrame({"user": [1.0, 2.0], "item": [7, 8]})
    assert read(frame).collect().rows() == [(1, 7), (2, 8)]
    frame.loc[1, "user"] = None
    with pytest.raises(DataError, match=r"pandas frame, row 2: the user .* is missing"):
        read(frame)
    frame.loc[1, "user"] = 1.5
    with pytest.raises(DataError, match=r"row 2: the user .* is 1\.5; expected a whole number"):
        read(frame)


@pytest.mark.parametrize("dtype", [pl.Int8, pl.UInt16, pl.Int32, pl.UInt64, pl.Int64])
def test_integers_of_any_width(dtype):
    frame = pl.DataFrame({"user": [1, 2], "item": [7, 8]}, schema=dict.fromkeys(("user", "item"), dtype))
    assert read(frame).collect().schema == {"user": pl.Int64, "item": pl.Int64}


def test_unsigned_beyond_int64_become_text():
    frame = pl.DataFrame({"user": [1, 2**64 - 1], "item": [7, 8]}, schema_overrides={"user": pl.UInt64})
    assert read(frame).collect()["user"].to_list() == ["1", "18446744073709551615"]


def test_uuids_and_categories():
    ids = [uuid.UUID(int=1), uuid.UUID(int=2)]
    expected = [str(value) for value in ids]
    assert read(pd.DataFrame({"user": ids, "item": [1, 2]})).collect()["user"].to_list() == expected
    assert (
        read(pl.DataFrame({"user": pl.Series(ids, dtype=pl.Object), "item": [1, 2]})).collect()["user"].to_list()
        == expected
    )
    categories = pl.DataFrame({"user": pl.Series(["x", "y"], dtype=pl.Categorical), "item": [1, 2]})
    assert read(categories).collect()["user"].to_list() == ["x", "y"]
    relation = duckdb.sql("select '00000000-0000-0000-0000-000000000001'::uuid as user_id, 5 as item")
    assert read(relation).collect().rows() == [(expected[0], 5)]


def test_objects_of_mixed_types_are_named():
    with pytest.raises(DataError, match=r'pandas frame: the column "item" holds Python objects of the types int, str'):
        read(pd.DataFrame({"user": [1, 2], "item": pd.Series([1, "a"], dtype=object)}))
    assert read(pd.DataFrame({"user": [1, 2], "item": pd.Series(["b", "a"], dtype=object)})).rows == 2
    with pytest.raises(DataError, match=r"row 2: the item .* is missing"):
        read(pd.DataFrame({"user": [1, 2], "item": pd.Series(["b", None], dtype=object)}))
    with pytest.raises(ColumnError, match=r'"item" has the type List'):
        read(pl.DataFrame({"user": [1], "item": [[1]]}))


@pytest.mark.parametrize(
    "times",
    [
        pd.Series(pd.to_datetime(["2020-05-05T14:08:48"])),
        pd.Series(pd.to_datetime(["2020-05-05T14:08:48Z"])),
        pd.Series(pd.to_datetime(["2020-05-05T16:08:48+02:00"])),
        pd.Series(["2020-05-05T14:08:48"]),
        pd.Series([1588687728.0]),
        pd.Series(np.array(["2020-05-05T14:08:48"], dtype="datetime64[s]")),
    ],
)
def test_pandas_times(times):
    log = read(pd.DataFrame({"user": [1], "item": [2], "time": times}))
    assert (log.collect()["time"][0], log.time_unit) == (1588687728000000, "us")


def test_polars_times():
    base = {"user": [1], "item": [2]}
    moment = dt.datetime(2020, 5, 5, 14, 8, 48)
    for unit in ("ms", "us", "ns"):
        log = read(pl.DataFrame(base | {"time": pl.Series([moment], dtype=pl.Datetime(unit))}))
        assert (log.collect()["time"][0], log.time_unit) == (1588687728000000, "us")
    zoned = pl.Series([moment]).dt.replace_time_zone("Europe/Berlin")
    assert read(pl.DataFrame(base | {"time": zoned})).collect()["time"][0] == 1588680528000000
    assert read(pl.DataFrame(base | {"time": [moment.date()]})).collect()["time"][0] == 1588636800000000
    assert read(pl.DataFrame(base | {"time": [1588687728]})).time_unit == "s"


def test_what_is_no_log():
    with pytest.raises(DataError, match=r"cannot read a log from builtins\.dict: expected a path, or a pandas"):
        read({"user": [1]})
    with pytest.raises(DataError, match=r"polars frame is empty"):
        read(pl.DataFrame({"user": [], "item": []}, schema={"user": pl.Int64, "item": pl.Int64}))
    with pytest.raises(ConfigError, match="are for files, not for frames"):
        read(pl.DataFrame({"user": [1], "item": [2]}), separator=",")
    with pytest.raises(ColumnError, match=r'the column "time" holds no times: its first value is \'noon\''):
        read(pl.DataFrame({"user": [1], "item": [2], "time": ["noon"]}))
    with pytest.raises(ColumnError, match=r'the column "user" \(user\) has no values at all, in 2 rows'):
        read(pl.DataFrame({"user": [None, None], "item": [2, 3]}))
    with pytest.raises(DataError, match=r"row 2: the rating .* is nan; expected a number"):
        read(pl.DataFrame({"user": [1, 2], "item": [2, 3], "rating": [1.0, float("nan")]}))
