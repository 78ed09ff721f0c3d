from __future__ import annotations

import pytest

from segue.data.simulation.simulate import simulate
from segue.data.statistics.describe import describe
from segue.data.statistics.sessions import describe_sessions
from segue.models import registry, suited
from segue.models.markov import Markov
from segue.models.suited import Suggestion, suggestion_for, suggestion_for_dataset
from tests.evaluation.tasks.test_sessions import with_sessions

SHOP = simulate(40, 6, categories=8, products=4, longest=5).dataset()
REASON = "baskets of 2.0 items, 50% of them bought before"


def test_the_share_bought_before_counts_items_of_later_sessions_only() -> None:
    """Items of first sessions cannot repeat; an item twice in one session counts once."""
    made = with_sessions([[[1, 2], [2, 3, 3], [1, 4]], [[5], [5, 6]], [[7, 7]]])
    assert describe_sessions(made).bought_before == pytest.approx(3 / 6)
    assert describe_sessions(with_sessions([[[1, 1]], [[2]]])).bought_before == 0.0


def test_the_share_is_that_of_a_slow_count(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = SHOP.sessions
    repeated = total = 0
    for user in range(1, SHOP.n_users + 1):
        seen: set[int] = set()
        for number in range(sessions.offsets[user], sessions.offsets[user + 1]):
            items = set(sessions.items[sessions.starts[number] : sessions.ends[number]].tolist())
            if number > sessions.offsets[user]:
                repeated, total = repeated + len(items & seen), total + len(items)
            seen |= items
    assert describe_sessions(SHOP).bought_before == pytest.approx(repeated / total)
    monkeypatch.setattr("segue.data.statistics.sessions._SESSIONS", 7)
    assert describe_sessions(SHOP).bought_before == pytest.approx(repeated / total), "in pieces of whole users"
    assert describe(SHOP).facts()["items of a session taken in an earlier one"] == f"{repeated / total:.1%}"


def test_a_registered_model_is_suggested_for_baskets_with_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    made = with_sessions([[[1, 2], [1, 3]], [[4, 5], [5, 6]]])
    monkeypatch.setattr(suited, "_FOR_REPEATS", ("not-there", "markov", "popularity"))
    assert suggestion_for_dataset(made) == Suggestion("markov", "last-session-out", REASON)
    monkeypatch.setattr(suited, "_FOR_REPEATS", ("not-there",))
    assert suggestion_for_dataset(made) == Suggestion(None, "last-session-out", REASON)
    assert registry.MODELS["markov"] is Markov


def test_nothing_is_suggested_for_other_data() -> None:
    assert suggestion_for(None) is None
    assert suggestion_for_dataset(with_sessions([[[1, 2], [3, 4]]])) is None, "nobody repeats anything"
    assert suggestion_for_dataset(with_sessions([[[1], [1], [1]]])) is None, "one item in each"
