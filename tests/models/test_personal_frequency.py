from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

import segue
from segue.errors import ConfigError
from segue.models.markov import Markov
from segue.models.personal_frequency import PersonalFrequency
from tests.helpers import queries_of
from tests.models.baskets import DAY, N_ITEMS, QUESTIONS, as_histories, fitted, scores_of, world


def naive(config: PersonalFrequency, baskets: list[list[int]], days: list[int] | None) -> npt.NDArray[np.float64]:
    scores = np.zeros(N_ITEMS + 1)
    for number, basket in enumerate(baskets):
        weight = config.decay ** (len(baskets) - 1 - number)
        if config.half_life is not None and days is not None:
            weight *= 2.0 ** (-(days[-1] - days[number]) / config.half_life)
        for item in set(basket):
            scores[item] += weight
    return scores


@pytest.mark.parametrize(
    "config",
    [
        PersonalFrequency(),
        PersonalFrequency(decay=0.7, half_life=12.5, smoothing=2.0),
        PersonalFrequency.as_published(),
    ],
)
def test_scores_equal_a_plain_loop(config: PersonalFrequency) -> None:
    small = world()
    model = fitted(config, small.dataset())
    everyone = scores_of(model, small.dataset().histories())
    for row, (baskets, days) in enumerate(zip(small.baskets, small.days, strict=True)):
        expected = naive(config, baskets, days) + config.smoothing * small.shares()
        assert everyone[row] == pytest.approx(expected, abs=1e-5)
    given = scores_of(model, as_histories(QUESTIONS, [0, 0, 0]))
    for row, baskets in enumerate(QUESTIONS):
        assert given[row] == pytest.approx(naive(config, baskets, None) + config.smoothing * small.shares(), abs=1e-5)


def test_without_sessions_each_interaction_is_a_basket() -> None:
    small, config = world(), PersonalFrequency(decay=0.8)
    model = fitted(config, small.dataset(sessions=False))
    everyone = scores_of(model, small.dataset(sessions=False).histories())
    for row, baskets in enumerate(small.baskets):
        single = [[item] for basket in baskets for item in basket]
        assert everyone[row] == pytest.approx(naive(config, single, None) + config.smoothing * small.shares(), abs=1e-5)


def test_the_basket_in_progress_is_the_newest_basket() -> None:
    small, config = world(), PersonalFrequency(decay=0.5)
    model = fitted(config, small.dataset())
    whole = as_histories(QUESTIONS, [0, 0, 0])
    in_progress = replace(whole, baskets=whole.ends - [3, 1, 2])
    assert np.array_equal(scores_of(model, whole), scores_of(model, in_progress))
    empty = replace(whole, baskets=whole.ends)
    assert np.array_equal(scores_of(model, whole), scores_of(model, empty))


def test_markov_behind_orders_the_items_that_were_never_taken() -> None:
    small = world()
    model = fitted(PersonalFrequency(behind="markov", smoothing=0.3), small.dataset())
    other = fitted(Markov(), small.dataset())
    histories = as_histories(QUESTIONS, [0, 0, 0])
    behind = other.scores().all(queries_of(other, histories), 0, N_ITEMS + 1).numpy()
    own = np.stack([naive(PersonalFrequency(), baskets, None) for baskets in QUESTIONS])
    assert scores_of(model, histories) == pytest.approx(own + 0.3 * behind, abs=1e-5)


def test_a_half_life_needs_times() -> None:
    with pytest.raises(ConfigError, match="has no times"):
        segue.fit(PersonalFrequency(half_life=30), world().dataset(times=False))


def test_days_follow_the_unit_of_the_times() -> None:
    small = world()
    dataset = small.dataset()
    assert dataset.times is not None
    in_milliseconds = replace(dataset, times=dataset.times * 1000, time_unit="ms")
    config = PersonalFrequency(half_life=3.0)
    first = scores_of(fitted(config, dataset), dataset.histories())
    assert np.array_equal(first, scores_of(fitted(config, in_milliseconds), in_milliseconds.histories()))


def test_newer_events_and_new_users_count_at_once() -> None:
    small = world()
    recommender = segue.fit(PersonalFrequency(), small.dataset(), quiet=True)
    events = pl.DataFrame({"user": [0, 0, 99], "item": [112, 112, 113], "time": [500 * DAY, 501 * DAY, 500 * DAY]})
    live = recommender.with_events(events.with_columns(session=pl.Series([1, 2, 3])))
    assert live.recommend(0, k=2, exclude_seen=False)["item"].to_list() == [112, 102]
    assert live.recommend(99, k=1, exclude_seen=False)["item"].item() == 113
