"""Averages by category against a plain loop; what they agree with; what deletion costs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import segue
from segue.data.histories import Histories
from segue.data.simulation.planted import omegas
from segue.data.splits.by_user import Holdout, last_session_out
from segue.errors import ConfigError, DataError
from segue.evaluation.explanations import category_maps as module
from segue.evaluation.explanations.agreement import agreement, cooccurrence, separation
from segue.evaluation.explanations.category_maps import category_maps, steps_of
from segue.evaluation.explanations.deletion import deletion, without_items
from segue.evaluation.explanations.heatmaps import draw_maps, draw_reasons
from segue.evaluation.explanations.labels import Labels, planted_labels
from segue.inference.recommender import Recommender
from tests.inference.fakes import Attentive, Table, session_dataset

N_ITEMS = 9
CATEGORIES = Labels(("a", "b", "c"), np.array([-1, 0, 0, 1, 1, 2, 2, 0, -1, 2]))

items = st.integers(1, N_ITEMS)
shoppers = st.lists(
    st.lists(st.lists(items, min_size=1, max_size=4, unique=True), min_size=3, max_size=4), min_size=1, max_size=5
)


def asked(sessions: list[list[list[int]]]) -> Holdout:
    return last_session_out(session_dataset(sessions, N_ITEMS)).test


def slowly(
    model: Attentive, sessions: list[list[list[int]]], groups: Labels
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(effects, counts, attention), step by step."""
    shape = (len(groups.names), 3, 3)
    sums, counts, looks, likely = np.zeros(shape), np.zeros(shape), np.zeros(shape), np.zeros(shape)

    def logs(user: int, before: list[list[int]], basket: list[int]) -> np.ndarray:
        chances = np.exp((model.vectors @ model.query(user, before, basket))[1:])
        shares = [chances[CATEGORIES.codes[1:] == category].sum() for category in range(3)]
        return np.log(np.array(shares) / chances.sum())

    for user, own in enumerate(sessions, 1):
        group, before, session = groups.codes[user], own[:-1], own[-1]
        for step in range(1, len(session)) if group >= 0 else ():
            basket = session[:step]
            full = logs(user, before, basket)
            for place, item in enumerate(basket):
                rest = basket[:place] + basket[place + 1 :]
                change, row = full - logs(user, before, rest), CATEGORIES.codes[item]
                weight = (1 / step + item / sum(basket)) / 2 * step
                for column in range(3) if row >= 0 else ():
                    if column not in CATEGORIES.codes[rest]:
                        sums[group, row, column] += change[column]
                        counts[group, row, column] += 1
                        looks[group, row, column] += weight * np.exp(full[column])
                        likely[group, row, column] += np.exp(full[column])
    with np.errstate(invalid="ignore"):
        return sums / counts, counts, looks / likely


@settings(deadline=None, max_examples=40)
@given(shoppers, st.sampled_from([1, 5, 50_000]))
def test_maps_are_those_of_a_plain_loop(sessions: list[list[list[int]]], limit: int) -> None:
    model = Attentive(len(sessions), N_ITEMS)
    groups = Labels(("x", "y"), np.array([-1, 0, 1, 0, -1, 1])[: len(sessions) + 1])
    holdout = asked(sessions)
    if not any(len(own[-1]) > 1 and groups.codes[user] >= 0 for user, own in enumerate(sessions, 1)):
        with pytest.raises(DataError, match="no session has two items"):
            category_maps(model, holdout, CATEGORIES, groups)
        return
    original, module._VARIANTS = module._VARIANTS, limit
    try:
        found = category_maps(model, holdout, CATEGORIES, groups)
    finally:
        module._VARIANTS = original
    effects, counts, looks = slowly(model, sessions, groups)
    assert np.array_equal(found.counts, counts)
    assert np.allclose(found.effects, effects, atol=1e-4, equal_nan=True)
    assert found.attention is not None
    assert np.allclose(found.attention, looks, atol=1e-4, equal_nan=True)


def test_a_tiny_map_by_hand() -> None:
    """One session a1 → b → c of a model that gives b ln 3 more with a in the basket, and looks at nothing."""

    class Drawn(Table):
        def queries(self, histories: Histories) -> np.ndarray:  # type: ignore[override]
            import torch

            begins = histories.baskets if histories.baskets is not None else histories.ends
            pairs = zip(begins, histories.ends, strict=True)
            return torch.tensor([int(1 in histories.items[begin:end]) for begin, end in pairs])

    table = np.zeros((2, 4), dtype=np.float32)
    table[1, 2] = np.log(3)
    holdout = last_session_out(session_dataset([[[1], [2], [1, 2, 3]]], 3)).test
    found = category_maps(Drawn(table), holdout, Labels(("a", "b", "c"), np.array([-1, 0, 1, 2])))
    assert found.steps == 2
    assert found.attention is None
    assert found.counts[0].tolist() == [[2, 1, 2], [0, 1, 1], [0, 0, 0]]
    down = np.log(1 / 5) - np.log(1 / 3)
    assert found.effects[0, 0] == pytest.approx([down, np.log(3 / 5) - np.log(1 / 3), down])
    assert found.effects[0, 1, 1:] == pytest.approx([0, 0])


def test_steps_of_sessions() -> None:
    holdout = asked([[[1], [2], [3, 4, 5]], [[1], [2], [6]], [[1], [2], [7, 8]]])
    rows, histories = steps_of(holdout)
    assert rows.tolist() == [0, 0, 2]
    assert histories.baskets is not None
    assert [histories.items[a:b].tolist() for a, b in zip(histories.baskets, histories.ends, strict=True)] == [
        [3], [3, 4], [7],
    ]  # fmt: skip
    assert steps_of(holdout, least=2)[0].tolist() == [0]


# ---- labels --------------------------------------------------------------------------------------------------------


def test_labels_from_a_file(tmp_path: Path) -> None:
    catalogue = segue.Vocabulary(["ale", "bread", "cheese"])
    (tmp_path / "categories.csv").write_text("item,category\nbread,food\nale,drink\nwine,drink\n")
    found = Labels.of(catalogue, tmp_path / "categories.csv", "items")
    assert found.names == ("drink", "food")
    assert found.codes.tolist() == [-1, 0, 1, -1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("item,category\nwine,drink\n", "none of the 1 ids is one of the Dataset's items"),
        ("item,category\nale,food\nale,drink\n", "'ale' has two labels"),
        ("item\nale\n", "need two columns"),
    ],
)
def test_impossible_labels(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        Labels.of(segue.Vocabulary(["ale"]), tmp_path / "labels.csv", "items")
    with pytest.raises(DataError, match="there is no such file"):
        Labels.of(segue.Vocabulary(["ale"]), tmp_path / "nowhere.csv", "items")


@pytest.mark.parametrize("names", [False, True])
def test_labels_of_a_simulation(names: bool) -> None:
    made = segue.simulate(users=6, sessions=4, categories=5, products=3, longest=4, names=names)
    categories, groups = planted_labels(made.truth, made.dataset())
    dataset = made.dataset()
    assert groups.codes.tolist() == [-1, 0, 0, 0, 1, 1, 1]
    ids = dataset.catalogue.ids
    expected = [
        str(one).split("-")[0] if names else ("pasta", "rice", "noodles", "potatoes", "bread")[(one - 2) // 3]
        for one in ids
    ]
    assert [categories.names[code] for code in categories.codes[1:]] == expected


# ---- agreement -----------------------------------------------------------------------------------------------------


def test_the_truth_agrees_with_itself_in_any_measure() -> None:
    omega = omegas(20)
    found = agreement(np.exp(omega), omega)
    assert found.rank == pytest.approx((1, 1))
    assert found.linear[0] < 1
    assert (found.signs, found.differing) == (4, 4)
    assert agreement(2 * omega + 1, omega).linear == pytest.approx((1, 1))
    assert agreement(omega[::-1], omega).signs == 0
    lopsided = omega + np.triu(np.ones((20, 20)), 1) - np.tril(np.ones((20, 20)), -1)
    assert agreement(lopsided, omega).linear == pytest.approx((1, 1))
    with pytest.raises(DataError, match="1 pairs"):
        broken = omega.copy()
        broken[0, 3, 4] = np.nan
        agreement(broken, omega)


def test_rank_counts_the_related_pairs_alone() -> None:
    from scipy.stats import spearmanr

    omega, rng = omegas(20), np.random.default_rng(0)
    matrices = rng.normal(size=omega.shape)
    matrices += matrices.transpose(0, 2, 1)
    rows, columns = np.triu_indices(20, 1)
    related = omega[0, rows, columns] != 0
    assert related.sum() == 22
    expected = [
        spearmanr(m[rows, columns][related], o[rows, columns][related])[0] for m, o in zip(matrices, omega, strict=True)
    ]
    assert agreement(matrices, omega).rank == pytest.approx(expected)


def test_counts_follow_the_truth() -> None:
    made = segue.simulate(users=300, sessions=60, products=3, price_effect=0.1, longest=10)
    dataset = made.dataset()
    found = agreement(cooccurrence(dataset, *planted_labels(made.truth, dataset)), made.truth.omega)
    assert min(found.rank) > 0.9
    assert min(found.linear) > 0.8
    assert found.signs == 4


def test_counts_by_hand() -> None:
    dataset = session_dataset([[[1, 2], [1], [2, 3]]], 3)
    labels = Labels(("a", "b", "c"), np.array([-1, 0, 1, 2]))
    found = cooccurrence(dataset, labels, Labels.one(1))[0]
    assert found[0, 1] == pytest.approx(np.log(1.5 * 4 / (2.5 * 2.5)))
    assert found[0, 2] == pytest.approx(np.log(0.5 * 4 / (2.5 * 1.5)))


def test_separation() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat([0, 1], 200)
    noise = rng.normal(size=(400, 10))
    assert 0.4 < separation(noise, groups) < 0.6
    assert separation(noise + 4 * groups[:, None], groups) == pytest.approx(1)
    one = noise.copy()
    one[:, 3] += 2 * groups
    assert separation(one, groups) > 0.85


# ---- deletion ------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(shoppers, st.data())
def test_without_items(sessions: list[list[list[int]]], data: st.DataObject) -> None:
    _, histories = steps_of(asked(sessions))
    assert histories.baskets is not None
    if not len(histories):
        return
    model = Attentive(len(sessions), N_ITEMS)
    rows, places = [], []
    for row, (begin, end) in enumerate(zip(histories.baskets, histories.ends, strict=True)):
        out = data.draw(st.sets(st.integers(int(begin), int(end) - 1)))
        rows += [row] * len(out)
        places += sorted(out)
    left = without_items(histories, np.array(rows, dtype=np.int64), np.array(places, dtype=np.int64))
    gone = set(zip(rows, places, strict=True))
    for row in range(len(histories)):
        user = int(histories.users[row])
        kept = [
            int(histories.items[place])
            for place in range(histories.baskets[row], histories.ends[row])
            if (row, place) not in gone
        ]
        expected = model.query(user, sessions[user - 1][:-1], kept)
        assert model.queries(left.select(np.array([row])))[0].numpy() == pytest.approx(expected, abs=1e-5)


def test_deletion_of_what_matters_costs_more() -> None:
    rng = np.random.default_rng(5)
    sessions = [[rng.permutation(N_ITEMS)[:n] + 1 for n in (2, 3, 5)] for _ in range(60)]
    holdout = asked([[list(map(int, session)) for session in own] for own in sessions])
    model = Attentive(60, N_ITEMS)
    found = deletion(model, holdout)
    assert found.steps == 60 * 3
    assert found.one > max(found.random_one, 0)
    assert found.half > found.random_half
    assert found.ratios[0] == pytest.approx(found.one / found.random_one)
    looked = deletion(model, holdout, "attention")
    assert looked.one <= found.one + 1e-6
    assert looked.random_one == pytest.approx(found.random_one)
    with pytest.raises(ConfigError, match="has no attention"):
        deletion(Table(np.zeros((61, N_ITEMS + 1))), holdout, "attention")
    with pytest.raises(DataError, match="no session has three items"):
        deletion(model, asked([[[1], [2], [3, 4]]]))


# ---- pictures ------------------------------------------------------------------------------------------------------


def test_pictures_are_drawn(tmp_path: Path) -> None:
    made = segue.simulate(users=8, sessions=5, categories=5, products=3, longest=5, names=True)
    dataset = made.dataset()
    model = Attentive(dataset.n_users, dataset.n_items)
    maps = category_maps(model, last_session_out(dataset).test, *planted_labels(made.truth, dataset))
    draw_maps(tmp_path / "effects.png", maps)
    draw_maps(tmp_path / "looks.png", maps, "attention")
    recommender = Recommender(model, dataset)
    basket = dataset.catalogue.ids[:3].to_list()
    lists = recommender.recommend("user-0001", basket=basket, k=4)
    why = recommender.explain("user-0001", lists["item"], basket=basket)
    draw_reasons(tmp_path / "one.png", why, recommender.attention("user-0001", basket=basket))
    draw_reasons(tmp_path / "plain.png", why)
    for path in tmp_path.iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")
    assert len(list(tmp_path.iterdir())) == 4
    assert set(why["kind"]) == {"basket", "session", "user"}
