from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from segue.models import session_neighbours
from segue.models.vsknn import VSKNN
from segue.models.vstan import VSTAN
from tests.models.baskets import N_ITEMS, QUESTIONS, World, as_histories, fitted, scores_of, world


def stored(small: World, unit: str) -> list[tuple[int, int, list[int]]]:
    """Day, user and items of every session or history, the most recent first; equal days: the later in the log."""
    if unit == "history":
        sessions = [
            (days[-1], user, [item for basket in baskets for item in basket])
            for user, (baskets, days) in enumerate(zip(small.baskets, small.days, strict=True), 1)
        ]
    else:
        sessions = [
            (day, user, basket)
            for user, (baskets, days) in enumerate(zip(small.baskets, small.days, strict=True), 1)
            for basket, day in zip(baskets, days, strict=True)
        ]
    return sorted(sessions, key=lambda session: session[0])[::-1]


def naive(config: VSKNN | VSTAN, small: World, unit: str, current: list[int], user: int) -> npt.NDArray[np.float64]:
    scores = np.zeros(N_ITEMS + 1)
    for _, _, terms in naive_terms(config, small, unit, current, user):
        for item, term in terms.items():
            scores[item] += term
    return scores


def naive_terms(
    config: VSKNN | VSTAN, small: World, unit: str, current: list[int], user: int
) -> list[tuple[int, float, dict[int, float]]]:
    """Number, similarity and terms by item of each of the nearest sessions."""
    sessions = stored(small, unit)
    place = {item: position for position, item in enumerate(current, 1)}
    length = len(current)
    own = next((number for number, one in enumerate(sessions) if one[1] == user), -1)
    if unit == "session" and own >= 0 and set(sessions[own][2]) != set(current):
        own = -1
    candidates = [number for number, one in enumerate(sessions) if set(one[2]) & set(current) and number != own][
        : config.sample
    ]
    similarity = {}
    for number in candidates:
        day, _, items = sessions[number]
        common = set(items) & set(current)
        if isinstance(config, VSTAN):
            weight = {item: math.exp((place[item] - length) / config.position_scale) for item in place}
            norm = math.sqrt(sum(value**2 for value in weight.values())) * math.sqrt(len(set(items)))
            similarity[number] = sum(weight[item] for item in common) / norm
            if config.age_scale is not None:
                similarity[number] *= math.exp(-(sessions[0][0] - day) / config.age_scale)
        else:
            similarity[number] = sum(place[item] / length for item in common) / len(place)
    chosen = sorted(candidates, key=lambda number: -similarity[number])[: config.neighbours]
    result = []
    for number in chosen:
        terms = {}
        items = sessions[number][2]
        last = {item: position for position, item in enumerate(items, 1)}
        newest = max(place[item] for item in set(items) & set(current))
        for item in set(items):
            rarity = math.log(len(sessions) / sum(item in one[2] for one in sessions))
            term = similarity[number] * (1 + config.idf * rarity)
            if isinstance(config, VSTAN):
                common = max(last[other] for other in last if other in place)
                term *= math.exp(-abs(last[item] - common) / config.distance_scale)
                term *= math.exp((newest - length) / config.match_scale)
            else:
                term /= length - newest + 1
            terms[item] = term
        result.append((number, similarity[number], terms))
    return result


CONFIGS = [
    VSKNN(),
    VSKNN(neighbours=4, sample=9, idf=1.5),
    VSTAN(),
    VSTAN(neighbours=5, sample=11, age_scale=None, idf=0.7, position_scale=2.0),
]


@pytest.mark.parametrize("unit", ["session", "history"])
@pytest.mark.parametrize("config", CONFIGS)
def test_scores_equal_the_programs(config: VSKNN | VSTAN, unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_neighbours, "_CELLS", 60)  # to test several blocks
    small = world()
    config = replace(config, unit=unit)
    model = fitted(config, small.dataset())
    prior = config.smoothing * small.shares()
    for baskets, users in ((small.baskets, list(range(1, 24))), (QUESTIONS, [0, 4, 0])):
        scores = scores_of(model, as_histories(baskets, users))
        for row, (own, user) in enumerate(zip(baskets, users, strict=True)):
            current = own[-1] if unit == "session" else [item for basket in own for item in basket]
            expected = naive(config, small, unit, current, user) + prior
            assert scores[row] == pytest.approx(expected, abs=1e-6), (row, user)


def test_the_basket_is_the_session_in_progress() -> None:
    small = world()
    model = fitted(VSKNN(), small.dataset())
    whole = as_histories(QUESTIONS, [0, 0, 0])
    with_baskets = replace(whole, baskets=whole.ends - [1, 1, 2])
    current = as_histories([[[2]], [[7]], [[9, 1]]], [0, 0, 0])
    assert np.array_equal(scores_of(model, with_baskets), scores_of(model, current))
    assert np.array_equal(scores_of(model, replace(whole, baskets=whole.ends)), scores_of(model, whole))


def test_the_unit_follows_the_data() -> None:
    small = world()
    assert VSKNN().resolved(small.dataset()).unit == "session"
    assert VSKNN().resolved(small.dataset(sessions=False)).unit == "history"
    single = World([[[item] for basket in user for item in basket] for user in small.baskets], small.days)
    single = World(single.baskets, [list(range(len(user))) for user in single.baskets])
    assert VSKNN().resolved(single.dataset()).unit == "history"


@pytest.mark.parametrize("unit", ["session", "history"])
@pytest.mark.parametrize("config", CONFIGS)
def test_sessions_that_speak_for_an_item(config: VSKNN | VSTAN, unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_neighbours, "_CELLS", 60)
    small = world()
    config = replace(config, unit=unit)
    model = fitted(config, small.dataset())
    assert isinstance(model, session_neighbours.SessionNeighboursModel)
    users = [user for user in range(1, 24) for _ in range(1, N_ITEMS + 1)]
    items = np.tile(np.arange(1, N_ITEMS + 1), 23)
    histories = as_histories([small.baskets[user - 1] for user in users], users)
    spoken = model.spoken_for(histories, items)
    sessions = stored(small, unit)
    found = 0
    for pair, (user, item) in enumerate(zip(users, items.tolist(), strict=True)):
        own = small.baskets[user - 1]
        current = own[-1] if unit == "session" else [one for basket in own for one in basket]
        expected = sorted(
            (number, similarity, terms[item])
            for number, similarity, terms in naive_terms(config, small, unit, current, user)
            if item in terms
        )
        rows = np.flatnonzero(spoken.pairs == pair)
        assert spoken.sessions[rows].tolist() == [number for number, _, _ in expected]
        assert spoken.similarities[rows] == pytest.approx([similarity for _, similarity, _ in expected])
        assert spoken.terms[rows] == pytest.approx([term for _, _, term in expected])
        for row, (number, _, _) in zip(rows, expected, strict=True):
            common = spoken.common[spoken.offsets[row] : spoken.offsets[row + 1]]
            assert common.tolist() == sorted(set(sessions[number][2]) & set(current))
        found += len(rows)
    assert found == len(spoken.pairs) > 100


def test_nobody_speaks_for_no_pairs() -> None:
    model = fitted(VSKNN(), world().dataset())
    assert isinstance(model, session_neighbours.SessionNeighboursModel)
    spoken = model.spoken_for(as_histories([], []), np.zeros(0, dtype=np.int64))
    assert not len(spoken.pairs) and spoken.offsets.tolist() == [0]
