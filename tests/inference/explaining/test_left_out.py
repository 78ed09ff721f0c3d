"""Effects of items, baskets, sessions and users, against the same in plain Python."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.data.histories import Histories
from segue.inference.explaining import left_out as module
from segue.inference.explaining.effects import Measure, effects, looks
from segue.inference.explaining.left_out import KINDS, parts_of
from segue.inference.scorer import Scorer
from segue.inference.scoring.batches import Limits, log_sums
from tests.inference.fakes import Looker, session_dataset

N_ITEMS = 12
REFERENCES = np.array([3, 5])
People = list[tuple[int, list[list[int]], list[int]]]

items = st.integers(1, N_ITEMS)
people = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.lists(st.lists(items, min_size=1, max_size=3), max_size=4),
        st.lists(items, max_size=3, unique=True),
    ).filter(lambda one: bool(one[1] or one[2])),
    min_size=1,
    max_size=5,
)


def histories_of(asked: People, with_baskets: bool) -> Histories:
    """The people's sessions and baskets one after the other; the basket is a session too."""
    every = [[*sessions, basket] for _, sessions, basket in asked]
    made = session_dataset(every, N_ITEMS)
    starts, ends = made.starts[1:], made.ends[1:]
    baskets = ends - [len(basket) for _, _, basket in asked] if with_baskets else None
    users = np.array([user for user, _, _ in asked])
    return Histories(users, made.items, starts, ends, None, baskets, np.unique(made.session_offsets))


Variant = tuple[int, list[list[int]], list[int]]


def left_out(one: Variant) -> Iterator[tuple[str, int, Variant]]:
    """(kind, number, what is left) of every part, by hand."""
    user, sessions, basket = one
    number = 0
    for place, session in enumerate(sessions):
        for within in range(len(session)):
            number += 1
            kept = [session[:within] + session[within + 1 :]] if len(session) > 1 else []
            yield "item", number, (user, sessions[:place] + kept + sessions[place + 1 :], basket)
    for place in range(len(basket)):
        yield "basket", place + 1, (user, sessions, basket[:place] + basket[place + 1 :])
    for place in range(len(sessions)):
        yield "session", place + 1, (user, sessions[:place] + sessions[place + 1 :], basket)
    if user:
        yield "user", 0, (0, sessions, basket)


def value(model: Looker, one: Variant, item: int, measure: Measure) -> float:
    scores = model.vectors @ model.query(*one)
    return float(scores[item] - (np.log(np.exp(scores[1:]).sum()) if measure == "log-probability" else 0))


@settings(deadline=None, max_examples=60)
@given(people, st.booleans(), st.sampled_from(["score", "log-probability"]), st.data())
def test_effects_are_those_of_plain_python(
    asked: People, with_baskets: bool, measure: Measure, data: st.DataObject
) -> None:
    if not with_baskets:
        asked = [(user, [*sessions, *([basket] if basket else [])], []) for user, sessions, basket in asked]
    model = Looker(3, N_ITEMS)
    histories = histories_of(asked, with_baskets)
    rows = np.array(data.draw(st.lists(st.integers(0, len(asked) - 1), min_size=1, max_size=6)))
    wanted = np.array(data.draw(st.lists(items, min_size=len(rows), max_size=len(rows))))
    kinds = data.draw(st.lists(st.sampled_from(KINDS), min_size=1, unique=True))
    original, module._ITEMS = module._ITEMS, data.draw(st.sampled_from([1, 64, 10_000]))
    try:
        found = effects(model, histories, rows, wanted, REFERENCES, kinds, measure)
    finally:
        module._ITEMS = original
    for pair, (row, item) in enumerate(zip(rows, wanted, strict=True)):
        user, sessions, basket = asked[row]
        full = value(model, asked[row], item, measure)
        assert found.scores[pair] == pytest.approx(full, abs=1e-4)
        expected = {}
        for kind, number, rest in left_out(asked[row]):
            if kind in kinds:
                without = [rest]
                if not (rest[1] or rest[2]):
                    without = [
                        (user, sessions, [int(code)]) if kind == "basket" else (user, [[int(code)]], basket)
                        for code in REFERENCES
                    ]
                expected[kind, number] = full - np.mean([value(model, one, item, measure) for one in without])
        mine = found.pairs == pair
        which = found.which[mine]
        names = zip((KINDS[kind] for kind in found.parts.kinds[which]), found.parts.numbers[which], strict=True)
        got = dict(zip(names, found.effects[mine], strict=True))
        assert got.keys() == expected.keys()
        assert [got[name] for name in expected] == pytest.approx(list(expected.values()), abs=1e-4)
        assert np.all(np.diff(found.effects[mine]) <= 0)


@settings(deadline=None, max_examples=40)
@given(people, st.integers(1, 6))
def test_only_what_is_read_is_left_out(asked: People, newest: int) -> None:
    histories = histories_of(asked, True)
    found = parts_of(histories, ("item", "basket", "session"), newest)
    bounds = zip(histories.starts, histories.ends, strict=True)
    read = [set(range(max(start, end - newest), end)) for start, end in bounds]
    whole = parts_of(histories, ("item", "basket", "session"), None)
    expected = [
        (int(row), int(kind), int(start), int(end), int(number))
        for row, kind, start, end, number in zip(
            whole.rows, whole.kinds, whole.starts, whole.ends, whole.numbers, strict=True
        )
        if read[row] & set(range(start, end))
    ]
    columns = (found.rows, found.kinds, found.starts, found.ends, found.numbers)
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == expected


@settings(deadline=None, max_examples=40)
@given(people)
def test_attention_of_parts_is_the_sum_over_their_items(asked: People) -> None:
    model, histories = Looker(3, N_ITEMS), histories_of(asked, True)
    parts = parts_of(histories, KINDS, None)
    seen = looks(model, histories)
    assert seen is not None
    found = seen.of_parts(histories, parts)
    for place, (row, kind, number) in enumerate(zip(parts.rows, parts.kinds, parts.numbers, strict=True)):
        basket = asked[row][2]
        if KINDS[kind] != "basket":
            assert np.isnan(found[place])
        else:
            expected = (1 / len(basket) + basket[number - 1] / sum(basket)) / 2
            assert found[place] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_log_sums_are_those_of_each_group(chunk: int) -> None:
    model = Looker(1, N_ITEMS)
    queries = torch.randn(7, 4, generator=torch.Generator().manual_seed(0)) * 20
    groups = torch.arange(N_ITEMS + 1) % 3
    limits = Limits(chunk_items=chunk, buffer_bytes=4 * 3 * chunk)
    scores = model.score_all(queries, 0, N_ITEMS + 1)
    scorer = Scorer.of(model)
    found = log_sums(scorer, queries, limits, groups, 4)
    for group in range(3):
        inside = (groups == group) & (torch.arange(N_ITEMS + 1) > 0)
        assert torch.allclose(found[:, group], scores[:, inside].logsumexp(1), atol=1e-4)
    assert bool((found[:, 3] == -torch.inf).all())
    assert torch.allclose(log_sums(scorer, queries, limits)[:, 0], scores[:, 1:].logsumexp(1), atol=1e-4)


class Newest(Looker):
    """Reads the newest three items only."""

    max_history = 3

    def queries(self, histories: Histories) -> torch.Tensor:
        return super().queries(histories.last(3))


@settings(deadline=None, max_examples=40)
@given(people, st.data())
def test_what_is_read_next_moves_up(asked: People, data: st.DataObject) -> None:
    """A model of limited history, asked without a part, reads what stood before it: as if that had never been."""
    model, histories = Newest(3, N_ITEMS), histories_of(asked, True)
    rows = np.arange(len(asked))
    wanted = np.array(data.draw(st.lists(items, min_size=len(rows), max_size=len(rows))))
    found = effects(model, histories, rows, wanted, REFERENCES, ("item", "basket", "session"))
    expected = {}
    for row, one in enumerate(asked):
        for kind, number, rest in left_out(one):
            if kind != "user" and (rest[1] or rest[2]):
                left = histories_of([rest], True)
                score = model.score_items(model.queries(left), torch.tensor([[wanted[row]]])).item()
                expected[row, kind, number] = found.scores[row] - score
    for pair, which, effect in zip(found.pairs, found.which, found.effects, strict=True):
        key = pair, KINDS[found.parts.kinds[which]], found.parts.numbers[which]
        if key in expected:
            assert effect == pytest.approx(expected[key], abs=1e-4)
        else:
            assert found.parts.lengths[which] == histories.lengths[pair]
