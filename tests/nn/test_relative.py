"""Time buckets, which do not depend on the unit, and relative biases."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from segue.nn.relative import BUCKETS, RelativeBias, time_buckets
from segue.nn.transformer import Encoder
from tests.models import paper

ROWS = st.lists(st.lists(st.integers(0, 10**9), min_size=4, max_size=4), min_size=1, max_size=4)


def buckets_of(rows: list[list[int]], gap: int, unit: int = 1) -> torch.Tensor:
    times = torch.tensor(rows) * unit
    return time_buckets(times[:, -1:] - times, torch.tensor(gap * unit))


def at_a_border(between: int, gap: int) -> bool:
    """Check that a time is so near to the border of two buckets that float32 may round it to either."""
    exact = 2 * np.log2(max(between, 1e-9) / gap) + 16.25
    return bool(abs(exact - round(exact)) <= 1e-4)


@settings(deadline=None)
@given(ROWS, st.integers(1, 10**6))
def test_buckets_are_those_of_a_plain_loop_in_any_order_of_times(rows: list[list[int]], gap: int) -> None:
    buckets = buckets_of(rows, gap)
    for row, now, past in np.ndindex(*buckets.shape):
        if not at_a_border(rows[row][now] - rows[row][past], gap):
            assert buckets[row, now, past] == paper.time_bucket(rows[row][now] - rows[row][past], gap)


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 10**5), min_size=3, max_size=3), min_size=1, max_size=4), st.integers(1, 10**3))
def test_the_unit_of_the_times_does_not_matter(rows: list[list[int]], gap: int) -> None:
    """Compare days with seconds and nanoseconds, up to some of the longest times that int64 can hold."""
    assume(not any(at_a_border(later - earlier, gap) for row in rows for later in row for earlier in row))
    days = buckets_of(rows, gap)
    assert torch.equal(buckets_of(rows, gap, 86_400), days)
    if max(map(max, rows)) < 10**4:
        assert torch.equal(buckets_of(rows, gap, 86_400 * 10**9), days)


def test_a_time_at_a_border_is_in_one_of_the_two_buckets() -> None:
    """Test 63,618 with a gap of 271, which is 2 ** 7.875 gaps up to rounding."""
    assert at_a_border(63_618, 271)
    for unit in (1, 86_400, 86_400 * 10**9):
        assert buckets_of([[0, 63_618]], 271, unit)[0, 1, 0] in (31, 32)


def test_coarse_times_are_away_from_borders() -> None:
    """Check that powers of 2 of the gap have the same bucket in every unit; each doubling is two buckets further."""
    times = [[0, 1, 2, 4, 8]]
    for unit in (1, 7, 1000, 86_400, 10**9):
        assert buckets_of(times, 1, unit)[0].diagonal().tolist() == [0] * 5
        assert buckets_of(times, 1, unit)[0, :, 0].tolist() == [0, 16, 18, 20, 22]


def test_the_longest_and_the_shortest_times_have_the_outer_buckets() -> None:
    assert buckets_of([[0, 10**15]], 1)[0, 1, 0] == BUCKETS - 1
    assert buckets_of([[0, 1]], 10**9)[0, 1, 0] == 0
    assert buckets_of([[5, 0]], 1)[0, 1, 0] == 0  # a row out of order


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(1, 3), st.booleans(), st.booleans(), st.booleans())
def test_the_bias_is_that_of_a_plain_loop(length: int, heads: int, positions: bool, times: bool, known: bool) -> None:
    layer = RelativeBias(heads, 6, positions, times)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    buckets = torch.randint(0, BUCKETS, (3, length, length))
    bias = layer(length, buckets if known else None)
    if not positions and not (times and known):
        assert bias is None
        return
    bias = bias.expand(3, -1, -1, -1)
    for row, head, now, past in np.ndindex(*bias.shape):
        if past <= now:
            expected = layer.positions[head, now - past].item() if layer.positions is not None else 0.0
            if layer.times is not None and known:
                expected += layer.times[head, buckets[row, now, past]].item()
            assert abs(bias[row, head, now, past].item() - expected) < 1e-6


def test_a_plain_encoder_has_only_its_former_parameters() -> None:
    plain = Encoder(8, 6, 1, 2, 8, 0.0, "pre", "relu").state_dict()
    assert not [name for name in plain if "bias." in name or "gate" in name or "gap" in name]
    full = Encoder(8, 6, 1, 2, 8, 0.0, "ligr", "relu", "relative", True).state_dict()
    added = {"blocks.0.bias.positions", "blocks.0.bias.times", "gap"} | {
        f"blocks.0.{part}_gate.{name}" for part in ("attention", "feed_forward") for name in ("weight", "bias")
    }
    assert full.keys() - plain.keys() == added
    assert plain.keys() - full.keys() == {"positions.weight"}
