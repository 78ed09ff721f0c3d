"""The simulator: the same seed gives the same log, and the log has the structure that the truth says."""

import numpy as np
import polars as pl
import pytest

from segue.data.simulate import DAY, START, Simulation, simulate
from segue.errors import ConfigError


@pytest.fixture(scope="module")
def made() -> Simulation:
    return simulate(users=1500, items=300, seed=0)


def _histories(made: Simulation) -> pl.DataFrame:
    """The log by user and time, with the item before each."""
    log = made.log.sort("user", "time", maintain_order=True)
    return log.with_columns(before=pl.col("item").shift(1).over("user"), pause=pl.col("time").diff().over("user"))


def test_same_seed_same_log() -> None:
    one, two, other = simulate(60, 40, 3), simulate(60, 40, 3), simulate(60, 40, 4)
    assert one.log.equals(two.log)
    assert np.array_equal(one.tastes, two.tastes)
    assert not one.log.equals(other.log)


def test_log_is_as_described(made: Simulation) -> None:
    assert made.log.schema == {"user": pl.String, "item": pl.String, "time": pl.Int64}
    assert made.log["time"].is_sorted()
    assert made.log["time"][0] >= START
    assert made.log["user"].n_unique() == 1500
    assert set(made.log["item"]) <= set(made.items["item"])
    lengths = made.log.group_by("user").len()["len"]
    assert lengths.min() >= 5  # type: ignore[operator]
    assert float(lengths.mean()) == pytest.approx(25, rel=0.05)  # type: ignore[arg-type]


def test_names_are_for_people(made: Simulation) -> None:
    assert made.users["user"][41] == "user-0042"
    assert made.items["item"].is_unique().all()
    assert made.items["item"].str.contains(r"^[a-z]+-\d\d$").all()
    assert (made.items["item"].str.split("-").list.first() == made.items["category"]).all()


def test_truth_adds_up(made: Simulation) -> None:
    assert made.tastes.shape == (1500, 20)
    assert np.allclose(made.tastes.sum(axis=1), 1)
    assert np.allclose(made.transitions.sum(axis=1), 1)
    assert made.items["weight"].sum() == pytest.approx(1)
    assert (made.items["item"] != made.items["partner"]).all()
    assert set(made.items["partner"]) <= set(made.items["item"])


def test_times_come_in_visits(made: Simulation) -> None:
    pauses = _histories(made)["pause"].drop_nulls()
    assert pauses.min() > 0  # type: ignore[operator]
    within = pauses.filter(pauses < DAY / 4)
    assert len(within) / len(pauses) == pytest.approx(0.75, abs=0.02)
    assert float(within.mean()) == pytest.approx(240, rel=0.05)  # type: ignore[arg-type]
    assert float(pauses.filter(pauses >= DAY / 4).mean()) > 5 * DAY  # type: ignore[arg-type]


def test_popularity_is_skewed(made: Simulation) -> None:
    counts = made.log.group_by("item").len().sort("len", descending=True)["len"]
    assert counts[:30].sum() > 0.2 * counts.sum()  # a tenth of the items


def test_habit_leads_to_the_partner(made: Simulation) -> None:
    steps = _histories(made).drop_nulls("before").join(made.items, left_on="before", right_on="item")
    followed = (steps["item"] == steps["partner"]).mean()
    assert 0.1 < followed < 0.25  # type: ignore[operator]
    never = _histories(simulate(users=1500, items=300, seed=0, habit=0)).drop_nulls("before")
    by_chance = never.join(made.items, left_on="before", right_on="item")
    assert (by_chance["item"] == by_chance["partner"]).mean() < 0.1  # type: ignore[operator]


def test_users_keep_to_their_style_and_taste(made: Simulation) -> None:
    taken = made.log.join(made.items, on="item").join(made.users, on="user")
    assert (taken["style"] == taken["style_right"]).mean() > 0.6  # type: ignore[operator]
    favourite = (taken["category"] == taken["favourite"]).mean()
    assert favourite > 3 / 20  # type: ignore[operator]  # three times what chance gives


def test_hardly_anything_is_taken_twice(made: Simulation) -> None:
    assert made.log.select("user", "item").is_duplicated().mean() < 0.15  # type: ignore[operator]


def test_every_user_past_a_thousand_items_is_still_cheap() -> None:
    """Memory grows with users × steps, never with users × items."""
    made = simulate(users=50, items=20_000, mean_length=6)
    assert len(made.items) == 20_000
    assert made.items["item"][0] == "pasta-0001"


@pytest.mark.parametrize(
    ("option", "value"),
    [("users", 0), ("items", 3), ("mean_length", 1), ("categories", 25), ("styles", 0), ("habit", 1.5), ("days", 0)],
)
def test_impossible_options_are_named(option: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{option}={value} is impossible; it must be"):
        simulate(**{option: value})  # type: ignore[arg-type]
