"""The simulator against an independent writing of its specification, within sampling error, and against itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from scipy import stats

from segue import Dataset, prepare, read
from segue.data.simulation.planted import Planted
from segue.data.simulation.simulate import Simulation, simulate, truth_beside
from segue.errors import ConfigError

Floats = npt.NDArray[np.float64]
USERS, SESSIONS = 1000, 50
HALF = USERS * SESSIONS // 2


@pytest.fixture(scope="module")
def made() -> Simulation:
    return simulate(USERS, SESSIONS, products=12, price_effect=0.1, longest=10)


@pytest.fixture(scope="module")
def log(made: Simulation) -> pl.DataFrame:
    return made.log()


# ---- an independent writing of the specification ------------------------------------------------------------------


def block(upper: str, size: int) -> Floats:
    matrix = np.eye(size)
    values = iter(map(float, upper.replace("|", " ").split()))
    for row in range(size):
        for column in range(row + 1, size):
            matrix[row, column] = matrix[column, row] = next(values)
    return matrix


def omega(group: int) -> Floats:
    blocks = [block("-.25 -.25 -.25 | -.25 -.25 | -.25", 4), block(".2 .5 .8 | .4 .7 | .6", 4)]
    blocks.append(block("-.4 .5 | .5" if group == 0 else "-.4 -.5 | -.5", 3))
    blocks.append(block(".5 -.5 | -1", 3))
    blocks.append(block(".5 -.3 | .5" if group == 0 else ".5 1 | .5", 3))
    blocks.append(np.eye(1))
    blocks.append(block(".99" if group == 0 else "-.5", 2))
    whole, start = np.zeros((20, 20)), 0
    for part in blocks:
        whole[start : start + len(part), start : start + len(part)] = part
        start += len(part)
    return whole


def length_shares(shortest: int = 3, longest: int = 10) -> Floats:
    """P(length) for 0 … longest, of the clipped ceil(Weibull)."""
    reached = 1 - np.exp(-((np.maximum(np.arange(longest + 1) - 2, 0) / 1.4738) ** 0.8047))
    shares = np.diff(reached, prepend=0)
    shares[shortest] = shares[: shortest + 1].sum()
    shares[:shortest] = 0
    shares[longest] += 1 - shares.sum()
    return np.asarray(shares)


def expected_incidence(group: int, sessions: int = 100_000) -> Floats:
    """(sessions, 20) which categories are taken, by NumPy's own multivariate normal."""
    rng = np.random.default_rng(99)
    utility = rng.multivariate_normal(np.full(20, -0.5), omega(group), size=sessions, check_valid="ignore")
    utility += 1e-6 * rng.standard_normal(utility.shape)  # twins: a coin decides
    lengths = rng.choice(11, p=length_shares(), size=sessions)
    rank = (-utility).argsort(axis=1).argsort(axis=1)
    return (rank < lengths[:, None]).astype(float)


def incidence_of(log: pl.DataFrame, products: int, users: slice) -> Floats:
    """(sessions, 20) which categories each session of some users holds."""
    chosen = log.filter(pl.col("user").is_between(users.start, users.stop - 1))
    sessions = chosen["user"].to_numpy().astype(np.int64) * 100_000 + chosen["time"].to_numpy()
    _, row = np.unique(sessions, return_inverse=True)
    found = np.zeros((row.max() + 1, 20))
    np.add.at(found, (row, (chosen["item"].to_numpy() - 2) // products), 1)
    return found


def correlations(incidence: Floats) -> Floats:
    return np.asarray(np.corrcoef(incidence.T)[np.triu_indices(20, 1)])


def compare_incidence(found: Floats, group: int) -> None:
    """Shares and correlations agree within 5 standard errors of their difference (380 comparisons)."""
    expected = expected_incidence(group)
    assert found.max() == 1, "a category is taken once in a session"
    shares = expected.mean(axis=0)
    error = np.sqrt(shares * (1 - shares) * (1 / len(found) + 1 / len(expected)))
    assert (np.abs(found.mean(axis=0) - shares) / error).max() < 5
    error = np.sqrt(1 / len(found) + 1 / len(expected)) * np.ones(190)
    assert (np.abs(correlations(found) - correlations(expected)) / error).max() < 5


# ---- moments ------------------------------------------------------------------------------------------------------


def test_session_lengths_follow_the_clipped_weibull(log: pl.DataFrame) -> None:
    lengths = log.group_by("user", "session").len()["len"].to_numpy()
    counts = np.bincount(lengths, minlength=11)
    assert counts[:3].sum() == 0
    assert len(counts) == 11
    assert stats.chisquare(counts[3:], length_shares()[3:] * counts.sum()).pvalue > 1e-3


@pytest.mark.parametrize("group", [0, 1])
def test_categories_come_together_as_the_group_says(log: pl.DataFrame, group: int) -> None:
    found = incidence_of(log, 12, slice(group * USERS // 2, (group + 1) * USERS // 2))
    assert len(found) == HALF
    compare_incidence(found, group)


def test_the_groups_differ_where_they_should(log: pl.DataFrame) -> None:
    first, second = (np.corrcoef(incidence_of(log, 12, part).T) for part in (slice(0, 500), slice(500, 1000)))
    assert first[18, 19] > 0.7
    assert second[18, 19] < -0.1
    assert first[8, 10] > 0.2 > -0.1 > second[8, 10]


def test_tastes_have_the_planted_correlation_within_a_category() -> None:
    truth = simulate(6400, 1, products=10, taste=3.0).truth
    tastes = truth.tastes(np.arange(6400)).astype(float)
    assert tastes.std(axis=0) == pytest.approx(3.0, rel=0.05)
    planted = truth.correlations
    found = np.array([np.corrcoef(tastes[:, category].T) for category in range(20)])
    error = (1 - planted**2) / np.sqrt(6400) + 1e-6
    assert (np.abs(found - planted) / error).max() < 6
    across = np.corrcoef(tastes[:, 0, 0], tastes[:, 1, 0])[0, 1]
    assert abs(across) < 5 / np.sqrt(6400), "categories are independent"


def test_products_are_chosen_by_taste_price_and_noise(made: Simulation, log: pl.DataFrame) -> None:
    """The same purchases with products drawn in another way have the same moments."""
    truth = made.truth
    user, item = log["user"].to_numpy().astype(np.int64), log["item"].to_numpy() - 2
    category, product = item // 12, item % 12
    utilities = (truth.tastes(np.arange(USERS)) - 0.1 * truth.prices)[user, category]
    drawn = (utilities + np.random.default_rng(5).normal(size=utilities.shape)).argmax(axis=1)
    assert abs((product == utilities.argmax(axis=1)).mean() - (drawn == utilities.argmax(axis=1)).mean()) < 0.005
    shares = np.bincount(category * 12 + product, minlength=240) / len(item)
    expected = np.bincount(category * 12 + drawn, minlength=240) / len(item)
    assert (np.abs(shares - expected) / np.sqrt(2 * expected / len(item) + 1e-12)).max() < 5


def test_dear_products_are_bought_less() -> None:
    made = simulate(300, 20, products=10, taste=0.1, price_effect=3.0)
    item = made.log()["item"].to_numpy() - 2
    counts = np.bincount(item, minlength=200).reshape(20, 10)
    assert all(np.corrcoef(row, price)[0, 1] < -0.3 for row, price in zip(counts, made.truth.prices, strict=True))
    assert (counts.argmax(axis=1) == made.truth.prices.argmin(axis=1)).mean() > 0.9


def test_baskets_have_no_order(log: pl.DataFrame) -> None:
    """The category of the first item is no likelier than its share among all."""
    category = (log["item"].to_numpy() - 2) // 12
    first = log.select((pl.col("session") != pl.col("session").shift(1)).fill_null(True)).to_series().to_numpy()
    counts = np.bincount(category[first], minlength=20)
    lengths = log.select(pl.len().over("user", "session")).to_series().to_numpy()
    expected = np.bincount(category, weights=1 / lengths, minlength=20)
    assert stats.chisquare(counts, expected * counts.sum() / expected.sum()).pvalue > 1e-3


@pytest.mark.realdata
@pytest.mark.slow
def test_moments_are_those_of_the_published_file(real_data: Path) -> None:
    path = real_data / "parsrec" / "synthetic.txt"
    if not path.is_file():
        pytest.skip(f"no {path}")
    published = read(path).collect().select("user", "time", "item", session="time")
    made = simulate(1024, 100, products=100, price_effect=0.1, longest=10).log()
    sessions = 102_400
    for users in (slice(0, 512), slice(512, 1024)):
        found, known = incidence_of(made, 100, users), incidence_of(published, 100, users)
        assert np.abs(found.mean(axis=0) - known.mean(axis=0)).max() < 5 * np.sqrt(2 * 0.2 * 0.8 / len(found))
        assert np.abs(correlations(found) - correlations(known)).max() < 5 * np.sqrt(2 / len(found))
    lengths = [frame.group_by("user", "session").len()["len"].to_numpy() for frame in (made, published)]
    shares = [np.bincount(one, minlength=11) / sessions for one in lengths]
    assert np.abs(shares[0] - shares[1]).max() < 5 * np.sqrt(2 * 0.25 / sessions)
    again, spread = zip(*(choice_moments(frame) for frame in (made, published)), strict=True)
    assert again[0] == pytest.approx(again[1], abs=0.008), "how often a user takes the same product of a category"
    assert spread[0] == pytest.approx(spread[1], abs=0.0004), "how unequal products are"


def choice_moments(log: pl.DataFrame) -> tuple[float, float]:
    counts = np.zeros((1024, 20, 100))
    item = log["item"].to_numpy() - 2
    np.add.at(counts, (log["user"].to_numpy(), item // 100, item % 100), 1)
    total = counts.sum(axis=2)
    popularity = counts.sum(axis=0) / total.sum(axis=0)[:, None]
    return float((counts * (counts - 1)).sum() / (total * (total - 1)).sum()), float((popularity**2).sum(1).mean())


# ---- the same, however it is asked for -----------------------------------------------------------------------------


def test_same_seed_same_sessions() -> None:
    one, two, other = (simulate(70, 3, seed=seed).log() for seed in (3, 3, 4))
    assert one.equals(two)
    assert not one.equals(other)


def test_how_many_users_are_held_changes_nothing() -> None:
    whole = simulate(300, 4)
    assert simulate(300, 4, partition=1).log().equals(whole.log())
    assert [piece["user"].n_unique() for piece in simulate(300, 4, partition=100).pieces()] == [128, 128, 44]
    more = simulate(400, 4)
    assert np.array_equal(more.truth.tastes([0, 130, 299])[:2], whole.truth.tastes([0, 130]))


def test_the_log_is_as_described() -> None:
    made = simulate(65, 7, categories=5, products=4, shortest=1)
    log = made.log()
    assert log.schema == dict.fromkeys(["user", "session", "time", "item"], pl.Int32)
    assert log["session"].equals(log["time"].alias("session"))
    assert sorted(log["user"].unique()) == list(range(65))
    assert sorted(log["time"].unique()) == list(range(7))
    assert (log["item"].min(), log["item"].max()) == (2, 21)
    assert set(made.truth.categories_of(log["item"].to_numpy())) == set(range(5))
    lengths = log.group_by("user", "session").len()["len"]
    assert lengths.max() == 5, "never more than there are categories"


def test_names_are_for_people() -> None:
    log = simulate(9, 3, products=9, names=True).log()
    assert log["user"].unique().sort()[0] == "user-0001"
    plain = simulate(9, 3, products=9).log()
    assert plain.filter(pl.Series(log["item"] == "rice-03"))["item"].unique().to_list() == [2 + 9 + 2]


def test_prices_lie_between_half_and_twice_a_centre() -> None:
    prices = simulate(1, 1, products=500).truth.prices
    assert (prices.max(axis=1) / prices.min(axis=1)).max() <= 4
    centres = prices.mean(axis=1) / 1.25  # of a uniform from 1/2 to 2
    assert np.abs(np.log(centres) - 0.5).max() < 0.5
    assert np.log(centres).std() == pytest.approx(0.1, abs=0.06)


@pytest.mark.parametrize("name", ["made.parquet", "made.csv", "made.txt", "made"])
def test_every_format_holds_the_same_sessions(tmp_path: Path, name: str) -> None:
    made = simulate(130, 3, products=4)
    told: list[float] = []
    path = made.save(tmp_path / name, progress=lambda what, share: told.append(share))
    dataset = Dataset.open(path) if name == "made" else prepare(path)
    assert dataset.fingerprint == made.dataset().fingerprint
    assert len(dataset.sessions) == 390
    assert told[-1] == 1.0
    truth = Planted.load(truth_beside(path))
    assert truth.market == made.truth.market
    for field in ("omega", "groups", "prices", "factors"):
        assert np.array_equal(getattr(truth, field), getattr(made.truth, field))
    left = {truth_beside(path).name, name} | ({"made_columns_dtype.json"} if name == "made.txt" else set())
    assert {file.name for file in tmp_path.iterdir()} == left, "nothing temporary stays"


def test_a_dataset_in_a_folder_is_the_one_in_memory(tmp_path: Path) -> None:
    made = simulate(20, 3)
    assert made.dataset(tmp_path / "data").fingerprint == made.dataset().fingerprint


def test_formats_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.parquet, \.csv, \.txt"):
        simulate(5).save(tmp_path / "a.xlsx")
    with pytest.raises(ConfigError, match="session file holds integers"):
        simulate(5, names=True).save(tmp_path / "a.txt")
    assert (
        simulate(5, 2).save(tmp_path / "a.log", format="csv").read_text().startswith("user,session,time,item\n0,0,0,")
    )


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("users", 0), ("sessions", 0), ("categories", 21), ("categories", 0), ("products", 0), ("noise", -1.0),
        ("taste", -0.5), ("shortest", 0), ("shortest", 21), ("longest", 2), ("seed", -1), ("partition", 0),
        ("price_effect", float("nan")),
    ],
)  # fmt: skip
def test_impossible_options_are_named(option: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"{option}={value}\b.*: expected"):
        simulate(**{option: value})  # type: ignore[arg-type]
