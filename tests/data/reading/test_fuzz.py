from __future__ import annotations

import random

import pytest

from tests.data.reading import fuzzing


@pytest.mark.slow
def test_damaged_files_of_every_format_are_read_or_refused() -> None:
    report = fuzzing.run(25, seed=random.SystemRandom().randrange(10**6))
    assert not report.faults, report.faults[0]
    assert report.read > 20 and report.refused > 20 and report.rows_compared > 100


def test_a_case_can_be_repeated() -> None:
    assert fuzzing.case_of(3, 7) == fuzzing.case_of(3, 7) != fuzzing.case_of(3, 8)


@pytest.mark.parametrize("name", sorted(fuzzing.KINDS))
def test_whole_files_have_as_many_rows_as_an_independent_parser_counts(name: str) -> None:
    kind, rng = fuzzing.KINDS[name], random.Random(0)
    content = kind.make(rng)
    assert (kind.count(content) or 0) > 0
    lines = content.split(b"\n")
    if name not in ("json", "parquet") and len(lines) > 3 and b'"' not in content:
        assert (kind.count(b"\n".join(lines[:-2])) or 0) < (kind.count(content) or 0)
