from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.data.preparing.encoding import IntegerIds, TextIds, ids_of
from segue.data.spool import Spool, chunks


@pytest.mark.parametrize(
    ("dtype", "ids"),
    [(pl.Int64, st.integers(-(2**63), 2**63 - 1) | st.integers(0, 20)), (pl.String, st.text(max_size=3))],
)
def test_codes_follow_the_order_of_the_ids(dtype, ids):
    @settings(deadline=None)
    @given(st.lists(st.lists(ids, max_size=8), min_size=1).filter(any))
    def check(batches):
        collector = ids_of(dtype)
        kept = [collector.add(pl.Series(batch, dtype=dtype)) for batch in batches]
        vocabulary = collector.finish()
        every = [value for batch in batches for value in batch]
        assert vocabulary.ids.to_list() == sorted(set(every), key=lambda v: v.encode() if isinstance(v, str) else v)
        codes = np.concatenate([collector.codes(part) for part in kept])
        assert vocabulary.decode(codes).to_list() == every

    check()


def test_the_collector_follows_the_type():
    assert isinstance(ids_of(pl.Int64()), IntegerIds)
    assert isinstance(ids_of(pl.String()), TextIds)


def test_spool(tmp_path: Path):
    spool = Spool(tmp_path / "s", {"a": np.dtype(np.int32), "b": np.dtype(np.float32)})
    assert len(spool.map()["a"]) == 0
    spool.append({"a": np.arange(3), "b": np.ones(3)})
    spool.append({"a": np.arange(2)[::-1], "b": np.zeros(2)})
    assert spool.rows == 5
    assert spool.map()["a"].tolist() == [0, 1, 2, 1, 0]
    assert spool.load()["b"].dtype == np.float32
    spool.remove()
    assert list((tmp_path / "s").iterdir()) == []


def test_chunks():
    assert [(part.start, part.stop) for part in chunks(5, 2)] == [(0, 2), (2, 4), (4, 5)]
    assert list(chunks(0)) == []
