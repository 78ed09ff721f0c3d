"""Effects of items, baskets, sessions and users, compared with a plain Python version."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.data.histories import Histories
from segue.inference.explaining import left_out as module
from segue.inference.explaining.attention import attention_weights
from segue.inference.explaining.effects import Measure, effects
from segue.inference.explaining.left_out import PART_KINDS, parts_of
from segue.inference.scorer import Scorer
from segue.inference.scoring.batches import Limits, log_sum_exp
from tests.inference.fakes import Attentive, session_dataset

N_ITEMS = 12
REFERENCES = np.array([3, 5])
Case = tuple[int, list[list[int]], list[int]]
"""A user code, sessions and a basket."""

items = st.integers(1, N_ITEMS)
cases_drawn = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.lists(st.lists(items, min_size=1, max_size=3), max_size=4),
        st.lists(items, max_size=3, unique=True),
    ).filter(lambda case: bool(case[1] or case[2])),
    min_size=1,
    max_size=5,
)


def histories_of(cases: list[Case], with_baskets: bool) -> Histories:
    """Histories with the sessions and the basket of each case; the basket is a session too."""
    dataset = session_dataset([[*sessions, basket] for _, sessions, basket in cases], N_ITEMS)
    starts, ends = dataset.starts[1:], dataset.ends[1:]
    baskets = ends - [len(basket) for _, _, basket in cases] if with_baskets else None
    users = np.array([user for user, _, _ in cases])
    return Histories(users, dataset.items, starts, ends, None, baskets, np.unique(dataset.session_offsets))


def left_out(case: Case) -> Iterator[tuple[str, int, Case]]:
    """Kind and number of every part, and the case without it, in plain Python."""
    user, sessions, basket = case
    number = 0
    for index, session in enumerate(sessions):
        for within in range(len(session)):
            number += 1
            kept = [session[:within] + session[within + 1 :]] if len(session) > 1 else []
            yield "item", number, (user, sessions[:index] + kept + sessions[index + 1 :], basket)
    for index in range(len(basket)):
        yield "basket", index + 1, (user, sessions, basket[:index] + basket[index + 1 :])
    for index in range(len(sessions)):
        yield "session", index + 1, (user, sessions[:index] + sessions[index + 1 :], basket)
    if user:
        yield "user", 0, (0, sessions, basket)
    flat = [item for session in sessions for item in session]
    for item in set(flat):
        rest = [[other for other in session if other != item] for session in sessions]
        yield "repeats", len(flat) - flat[::-1].index(item), (user, [session for session in rest if session], basket)


def score_of(model: Attentive, case: Case, item: int, measure: Measure) -> float:
    scores = model.vectors @ model.query(*case)
    return float(scores[item] - (np.log(np.exp(scores[1:]).sum()) if measure == "log-probability" else 0))


@settings(deadline=None, max_examples=60)
@given(cases_drawn, st.booleans(), st.sampled_from(["score", "log-probability"]), st.data())
def test_effects_equal_those_of_plain_python(
    cases: list[Case], with_baskets: bool, measure: Measure, data: st.DataObject
) -> None:
    if not with_baskets:
        cases = [(user, [*sessions, *([basket] if basket else [])], []) for user, sessions, basket in cases]
    model = Attentive(3, N_ITEMS)
    histories = histories_of(cases, with_baskets)
    rows = np.array(data.draw(st.lists(st.integers(0, len(cases) - 1), min_size=1, max_size=6)))
    explained = np.array(data.draw(st.lists(items, min_size=len(rows), max_size=len(rows))))
    kinds = data.draw(st.lists(st.sampled_from(PART_KINDS), min_size=1, unique=True))
    original, module._MAX_ITEMS = module._MAX_ITEMS, data.draw(st.sampled_from([1, 64, 10_000]))
    try:
        result = effects(model, histories, rows, explained, REFERENCES, kinds, measure)
    finally:
        module._MAX_ITEMS = original
    for pair, (row, item) in enumerate(zip(rows, explained, strict=True)):
        user, sessions, basket = cases[row]
        full = score_of(model, cases[row], item, measure)
        assert result.scores[pair] == pytest.approx(full, abs=1e-4)
        expected = {}
        for kind, number, rest in left_out(cases[row]):
            if kind in kinds:
                without = [rest]
                if not (rest[1] or rest[2]):
                    without = [
                        (user, sessions, [int(code)]) if kind == "basket" else (user, [[int(code)]], basket)
                        for code in REFERENCES
                    ]
                expected[kind, number] = full - np.mean([score_of(model, case, item, measure) for case in without])
        of_pair = result.pairs == pair
        part = result.part_rows[of_pair]
        names = zip((PART_KINDS[kind] for kind in result.parts.kinds[part]), result.parts.numbers[part], strict=True)
        actual = dict(zip(names, result.effects[of_pair], strict=True))
        assert actual.keys() == expected.keys()
        assert [actual[name] for name in expected] == pytest.approx(list(expected.values()), abs=1e-4)
        assert np.all(np.diff(result.effects[of_pair]) <= 0)


@settings(deadline=None, max_examples=40)
@given(cases_drawn, st.integers(1, 6))
def test_only_parts_that_the_model_reads_are_left_out(cases: list[Case], newest: int) -> None:
    histories = histories_of(cases, True)
    parts = parts_of(histories, ("item", "basket", "session", "repeats"), newest)
    bounds = zip(histories.starts, histories.ends, strict=True)
    read = [set(range(max(start, end - newest), end)) for start, end in bounds]
    whole = parts_of(histories, ("item", "basket", "session", "repeats"), None)
    expected = [
        (int(row), int(kind), int(start), int(end), int(number))
        for row, kind, start, end, number in zip(
            whole.rows, whole.kinds, whole.starts, whole.ends, whole.numbers, strict=True
        )
        if read[row] & set(range(start, end))
    ]
    columns = (parts.rows, parts.kinds, parts.starts, parts.ends, parts.numbers)
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == expected


@settings(deadline=None, max_examples=40)
@given(cases_drawn)
def test_attention_of_parts_is_the_sum_over_their_items(cases: list[Case]) -> None:
    model, histories = Attentive(3, N_ITEMS), histories_of(cases, True)
    parts = parts_of(histories, PART_KINDS, None)
    attention = attention_weights(model, histories)
    assert attention is not None
    weights = attention.of_parts(histories, parts)
    for weight, row, kind, number in zip(weights, parts.rows, parts.kinds, parts.numbers, strict=True):
        basket = cases[row][2]
        if PART_KINDS[kind] != "basket":
            assert np.isnan(weight)
        else:
            expected = (1 / len(basket) + basket[number - 1] / sum(basket)) / 2
            assert weight == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_log_sum_exp_is_that_of_each_group(chunk: int) -> None:
    model = Attentive(1, N_ITEMS)
    queries = torch.randn(7, 4, generator=torch.Generator().manual_seed(0)) * 20
    groups = torch.arange(N_ITEMS + 1) % 3
    limits = Limits(chunk_items=chunk, buffer_bytes=4 * 3 * chunk)
    scores = model.score_all(queries, 0, N_ITEMS + 1)
    scorer = Scorer.of(model)
    logs = log_sum_exp(scorer, queries, limits, groups, 4)
    for group in range(3):
        inside = (groups == group) & (torch.arange(N_ITEMS + 1) > 0)
        assert torch.allclose(logs[:, group], scores[:, inside].logsumexp(1), atol=1e-4)
    assert bool((logs[:, 3] == -torch.inf).all())
    assert torch.allclose(log_sum_exp(scorer, queries, limits)[:, 0], scores[:, 1:].logsumexp(1), atol=1e-4)


class Newest(Attentive):
    """Model that reads the newest three items only."""

    max_history = 3

    def queries(self, histories: Histories) -> torch.Tensor:
        return super().queries(histories.last(3))


@settings(deadline=None, max_examples=40)
@given(cases_drawn, st.data())
def test_older_items_move_up(cases: list[Case], data: st.DataObject) -> None:
    """If a part is left out, a model of limited history reads older items instead."""
    model, histories = Newest(3, N_ITEMS), histories_of(cases, True)
    rows = np.arange(len(cases))
    explained = np.array(data.draw(st.lists(items, min_size=len(rows), max_size=len(rows))))
    result = effects(model, histories, rows, explained, REFERENCES, ("item", "basket", "session", "repeats"))
    expected = {}
    for row, case in enumerate(cases):
        for kind, number, rest in left_out(case):
            if kind != "user" and (rest[1] or rest[2]):
                queries = model.queries(histories_of([rest], True))
                score = model.score_items(queries, torch.tensor([[explained[row]]])).item()
                expected[row, kind, number] = result.scores[row] - score
    for pair, part, effect in zip(result.pairs, result.part_rows, result.effects, strict=True):
        key = pair, PART_KINDS[result.parts.kinds[part]], result.parts.numbers[part]
        if key in expected:
            assert effect == pytest.approx(expected[key], abs=1e-4)
        else:
            assert result.parts.lengths[part] == histories.lengths[pair]
