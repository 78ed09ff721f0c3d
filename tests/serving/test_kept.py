"""Kept lists are those that the model would give now."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import segue
from segue.serving.kept import LONGEST, KeptLists, newest_users
from segue.serving.served import BestItems, Question
from segue.serving.store.base import FORGOTTEN, RETRACTED, TOOK, Change
from segue.serving.torch_served import TorchServed
from tests.helpers import make_dataset
from tests.serving.servers import serving

N_ITEMS = 12


def question(**given: Any) -> Question:
    empty: dict[str, Any] = dict.fromkeys(Question.__dataclass_fields__)
    return Question(**{**empty, "k": 3, "strict": False, **given})


@pytest.fixture(scope="module")
def recommender() -> segue.Recommender:
    walks = [[(start + step) % N_ITEMS + 1 for step in range(5)] for start in range(8)]
    times = [[10 * step + start for step in range(5)] for start in range(8)]
    return segue.fit(segue.Markov(), make_dataset(walks, times, catalogue=range(1, N_ITEMS + 1)), quiet=True)


def answer(served: TorchServed, one: Question) -> BestItems:
    """The kept answer or, without one, that of the model, which is kept."""
    found = served.kept_answer(one)
    if found is None:
        (found,) = served.answer([one])  # type: ignore[assignment]
    assert isinstance(found, BestItems), found
    return found


EVENTS = st.tuples(
    st.sampled_from([TOOK, TOOK, TOOK, RETRACTED, FORGOTTEN]), st.integers(1, 10), st.integers(1, N_ITEMS + 2)
)
ASKED = st.tuples(st.just("ask"), st.integers(1, 10), st.integers(1, 5))


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.one_of(EVENTS, ASKED), max_size=25), capacity=st.integers(0, 9), ahead=st.integers(0, 9))
def test_kept_lists_are_those_of_the_model(
    recommender: segue.Recommender, steps: list[Any], capacity: int, ahead: int
) -> None:
    keeping, plain = TorchServed(recommender, "run"), TorchServed(recommender, "run")
    keeping.keep_lists(capacity)
    if ahead:
        keeping.make_ahead(ahead)
    for seq, (kind, user, number) in enumerate(steps, 1):
        if kind == "ask":
            one = question(user=user, k=number)
            found, (expected,) = answer(keeping, one), plain.answer([one])
            assert isinstance(expected, BestItems)
            assert (found.items, found.model) == (expected.items, expected.model)
            assert found.scores == pytest.approx(expected.scores)
            assert len(keeping.kept) <= capacity
            continue
        change = Change(seq, kind, str(user), str(number), (100 + seq) * 1_000_000, None, 0)
        for served in (keeping, plain):
            served.live.apply([change])


def test_all_lists_are_made_ahead_newest_users_first(recommender: segue.Recommender) -> None:
    served = TorchServed(recommender, "run")
    served.keep_lists(100)
    assert served.make_ahead(3) and len(served.kept) == 3
    assert [served.kept_answer(question(user=user)) is not None for user in range(1, 9)] == [False] * 5 + [True] * 3
    assert served.make_ahead(100) and not served.make_ahead(1)
    for user in range(1, 9):
        found = served.kept_answer(question(user=user, k=10))
        assert found is not None
        assert found.items == recommender.recommend([user], k=10)["item"].to_list()


@pytest.mark.parametrize(
    "given",
    [{"exclude_seen": False}, {"basket": [1]}, {"allow": [1]}, {"deny": [1]}, {"items": [1]}, {"show": ["title"]}],
    ids=str,
)
def test_other_questions_have_no_kept_list(recommender: segue.Recommender, given: dict[str, Any]) -> None:
    served = TorchServed(recommender, "run")
    served.keep_lists(100)
    served.make_ahead(100)
    assert served.kept_answer(question(user=1)) is not None
    assert served.kept_answer(question(user=1, **given)) is None
    assert served.kept_answer(question(user="nobody")) is None


def test_the_oldest_lists_make_room() -> None:
    kept = KeptLists(2, lambda _: 0)
    lists, scores = np.arange(1, 4)[None].repeat(3, 0), np.ones((3, 3), dtype=np.float32)
    kept.keep([1, 2, 3], [0, 0, 0], lists, scores)
    assert [kept.find(user, 3) is not None for user in (1, 2, 3)] == [False, True, True]
    assert kept.find(2, 4) is None
    long = np.ones((1, LONGEST + 1), dtype=np.int64)
    kept.keep([1], [0], long, long.astype(np.float32))
    assert kept.find(1, LONGEST) is not None and kept.find(1, LONGEST + 1) is None


def test_a_list_of_an_older_history_is_not_kept() -> None:
    versions = {1: 0, 2: 1}
    kept = KeptLists(9, versions.__getitem__)
    kept.keep([1, 2], [0, 0], np.ones((2, 3), dtype=np.int64), np.ones((2, 3), dtype=np.float32))
    assert kept.find(1, 3) is not None and kept.find(2, 3) is None
    kept.drop(1)
    kept.drop(2)
    assert not len(kept)


def test_nothing_is_left_of_a_forgotten_user(recommender: segue.Recommender) -> None:
    served = TorchServed(recommender, "run")
    served.keep_lists(100)
    served.make_ahead(100)
    assert len(served.kept) == 8
    served.live.apply([Change(1, FORGOTTEN, "3", "", 100_000_000, None, 0)])
    code = int(served.live.users.codes_of(["3"])[0])
    assert served.kept.find(code, 1) is None and len(served.kept) == 7
    newer = TorchServed(recommender, "run")  # other items were put: the lists of its own follow its own histories
    newer.keep_lists(100)
    newer.take_events(served.live)
    newer.make_ahead(100)
    assert len(newer.kept) == 7
    newer.live.apply([Change(2, TOOK, "4", "1", 101_000_000, None, 0)])
    assert len(newer.kept) == 6 and len(served.kept) == 7


def test_newest_users() -> None:
    data = make_dataset({"a": ["x"], "b": ["y"], "c": [], "d": ["x"]}, {"a": [5], "b": [9], "c": [], "d": [7]})
    names = data.users.decode(newest_users(data, 9)).to_list()
    assert names == ["b", "d", "a"]
    assert data.users.decode(newest_users(data, 2)).to_list() == ["b", "d"]
    assert not len(newest_users(data, 0))
    assert len(newest_users(make_dataset([["x"], ["y"]]), 1)) == 1


def test_an_event_while_a_list_is_made_is_not_lost(recommender: segue.Recommender) -> None:
    served = TorchServed(recommender, "run")
    served.keep_lists(100)
    ranking, go_on = threading.Event(), threading.Event()
    rank = served.rank

    def slowly(*arguments: Any) -> Any:
        ranking.set()
        assert go_on.wait(60)
        return rank(*arguments)

    served.rank = slowly  # type: ignore[method-assign]
    making = threading.Thread(target=served.make_ahead, args=(100,))
    making.start()
    assert ranking.wait(60)
    served.live.apply([Change(1, TOOK, "1", "8", 10**12, None, 0)])
    go_on.set()
    making.join()
    assert served.kept_answer(question(user=1)) is None
    assert served.kept_answer(question(user=2)) is not None
    assert 8 not in answer(served, question(user=1, k=5)).items


def test_a_server_answers_from_kept_lists_until_an_event(run: Path, tmp_path: Path) -> None:
    with serving(run, f"sqlite:///{tmp_path / 'events.db'}", "--kept", "50") as server:

        def kept() -> float:
            lines = str(server.ask("GET", "/metrics")[1]).splitlines()
            return float(next(line for line in lines if line.startswith("segue_kept_answers_total ")).split()[1])

        until = time.monotonic() + 60
        while not kept():
            assert time.monotonic() < until
            first = server.items(user=1)
        before = kept()
        assert server.items(user=1) == first and kept() == before + 1
        assert server.ask("POST", "/v1/events", {"user": 1, "item": first[0]})[0] == 200
        after = server.items(user=1)
        assert first[0] not in after and kept() == before + 1
        assert server.items(user=1) == after and kept() == before + 2
