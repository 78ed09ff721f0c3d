"""Times in ISO form have one reading, for data, items and events."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl
import pytest

from segue.data.reading.read import read
from segue.data.times import to_timestamp, utc_time
from segue.errors import ColumnError, ConfigError
from tests.helpers import make_dataset


def test_a_time_without_a_zone_is_in_utc() -> None:
    noon = datetime(2024, 3, 1, 12, tzinfo=UTC)
    for text in ("2024-03-01T12:00", "2024-03-01 12:00:00", "2024-03-01T12:00Z", "2024-03-01T14:00+02:00"):
        assert utc_time(text) == noon and utc_time(text).utcoffset() == noon.utcoffset()
    assert utc_time("2024-03-01") == datetime(2024, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize("text", ["yesterday", "", "2024-13-01", "0001-01-01T00:00+14:00", "9999-12-31T23:59-14:00"])
def test_other_texts_are_no_times(text: str) -> None:
    with pytest.raises(ValueError):
        utc_time(text)
    data = make_dataset([[1, 2]], times=[[1_700_000_000, 1_700_000_001]])
    with pytest.raises(ConfigError, match=r"as_of=.* is not a time: expected an ISO date"):
        to_timestamp(data, text)


def test_times_that_python_cannot_show_are_refused_with_a_message() -> None:
    early = pl.Series("time", [-253_402_300_798_000_000], dtype=pl.Int64).cast(pl.Datetime("us"))
    with pytest.raises(ColumnError, match="before 1970 or after 2100, such as '-6060-"):
        read(pl.DataFrame({"user": ["a"], "item": ["b"], "time": early})).frames()
