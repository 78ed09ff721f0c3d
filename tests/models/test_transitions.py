"""Transitions: counts, scores and losses, compared with plain loops in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import segue
from segue.data import transitions
from segue.data.dataset import Dataset
from segue.data.histories import Histories
from segue.data.transitions import DECAY, STEPS, TransitionCounts
from segue.errors import ConfigError
from segue.models import transitions as models_transitions
from segue.models.transitions import TransitionExamples
from tests.helpers import make_dataset
from tests.models.test_parity import arrays, randomised

N_ITEMS = 9
ROWS = [[3, 9, 4, 5, 9, 4], [1, 2, 3, 9], [7], [2, 3, 2, 3, 2, 9, 9], []]
SMALL: dict[str, Any] = {"width": 8, "blocks": 1, "max_length": 5, "dropout": 0.0, "transitions": True}
MODELS = {
    "softmax": segue.SASRec(loss="softmax", **SMALL),
    "sampled": segue.SASRec(loss="sampled-softmax", negatives=7, **SMALL),
    "dot": segue.HSTU(loss="sampled-softmax", negatives=7, similarity="dot", **SMALL),
    "lrurec": segue.LRURec(loss="softmax", **SMALL),
}

histories_of_items = st.lists(st.lists(st.integers(1, N_ITEMS), max_size=8), min_size=1, max_size=5)


def world(rows: list[list[int]] | None = None) -> Dataset:
    return make_dataset(ROWS if rows is None else rows, catalogue=range(1, N_ITEMS + 1))


def counted(rows: list[list[int]], history: list[int], item: int, left_out: tuple[int, int] | None = None) -> float:
    """c(item) after a history; pairs that end at the place `left_out` (row, index) do not count."""
    total = 0.0
    for back, newest in enumerate(reversed(history[-STEPS:])):
        for number, row in enumerate(rows):
            for place, code in enumerate(row):
                if code != item or (number, place) == left_out:
                    continue
                for distance in range(1, min(STEPS, place) + 1):
                    total += DECAY**back * DECAY ** (distance - 1) * (row[place - distance] == newest)
    return total


@settings(max_examples=60, deadline=None)
@given(rows=histories_of_items, seed=st.integers(0, 99))
def test_counts_leave_the_target_out(rows: list[list[int]], seed: int) -> None:
    data = world(rows)
    places = [(number, place) for number, row in enumerate(rows) for place in range(1, len(row))]
    if not places:
        return
    maker = TransitionExamples(data)
    begins = np.array([data.starts[number + 1] for number, _ in places])
    ends = np.array([data.starts[number + 1] + place for number, place in places])
    targets = data.items[ends].astype(np.int64)
    negatives = np.random.default_rng(seed).integers(1, N_ITEMS + 1, 6)
    batch = maker.batch(begins, ends, targets, negatives)
    own = [counted(rows, rows[n][:place], rows[n][place], left_out=(n, place)) for n, place in places]
    np.testing.assert_allclose(batch.own, np.log1p(own), rtol=1e-5, atol=1e-6)
    expected = np.array([[counted(rows, rows[n][:place], int(item)) for item in negatives] for n, place in places])
    found = np.zeros_like(expected)
    found[batch.rows, batch.columns] = batch.values
    np.testing.assert_allclose(found, np.log1p(expected), rtol=1e-5, atol=1e-6)
    assert len(batch.rows) == (expected > 0).sum()  # no pair twice


def test_the_largest_counts_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transitions, "_MOST", 2)
    data = world()
    kept = TransitionCounts.of(data)
    assert (np.diff(kept.offsets) <= 2).all()
    monkeypatch.setattr(transitions, "_MOST", 100)
    whole = TransitionCounts.of(data)
    for item in range(1, N_ITEMS + 1):
        mine, all_of_it = (slice(*table.offsets[item : item + 2]) for table in (kept, whole))
        assert (np.diff(kept.followers[mine]) > 0).all()
        best = np.sort(whole.counts[all_of_it])[::-1][:2]
        np.testing.assert_array_equal(np.sort(kept.counts[mine])[::-1], best)


@pytest.mark.parametrize("name", MODELS)
def test_scores_have_the_additions(name: str) -> None:
    data = world()
    config = MODELS[name].resolved(data)
    model: Any = randomised(config.build(data.n_users, data.n_items), torch.float64)
    model.transitions.prepare(data)
    model.transitions.weight.data.fill_(0.7)
    histories = Histories.from_lists([np.array(row) for row in ([3, 9], [2], [5, 9, 4, 4, 3, 2, 3])], np.zeros(3, int))
    queries, items = model.eval().encode(model.inputs(histories)), model.scores()
    scores = items.all(queries, 0, N_ITEMS + 1).detach().numpy()
    plain = items.base.all(queries[:, : config.width], 0, N_ITEMS + 1).detach().numpy()
    for row in range(3):
        history = histories.items[histories.starts[row] : histories.ends[row]].tolist()
        for item in range(1, N_ITEMS + 1):
            expected = plain[row, item] + 0.7 * np.log1p(counted(ROWS, history, item))
            assert scores[row, item] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", ["softmax", "sampled"])
def test_loss(name: str) -> None:
    data = world()
    model: Any = randomised(MODELS[name].resolved(data).build(data.n_users, data.n_items), torch.float64)
    model.transitions.prepare(data)
    examples = model.examples(data)
    batch = examples.batch(np.arange(len(examples.users)), np.random.default_rng(3))
    loss = model.train()(batch).item()
    weights = arrays(model)
    states = model.hidden_states(model.items(batch.items), batch.items, batch.lengths, None)
    queries = model.similarity.query(states.flatten(0, 1)[batch.positions]).detach().numpy()
    vectors = model.item_vectors().detach().numpy()
    added = np.zeros((len(batch.targets), len(batch.negatives) if name == "sampled" else N_ITEMS))
    added[batch.transitions.rows, batch.transitions.columns] = batch.transitions.values
    negatives = batch.negatives.numpy() if name == "sampled" else np.arange(1, N_ITEMS + 1)
    expected = 0.0
    for row, target in enumerate(batch.targets.tolist()):
        own = queries[row] @ vectors[target] + weights["transitions.weight"] * float(batch.transitions.own[row])
        others = queries[row] @ vectors[negatives].T + weights["transitions.weight"] * added[row]
        if name == "sampled":
            others = others - batch.log_counts.numpy()
        others = others[negatives != target]
        expected += np.log(np.exp(own) + np.exp(others).sum()) - own
    assert loss == pytest.approx(expected, rel=1e-6)


@pytest.fixture(scope="module")
def split() -> segue.Split:
    return segue.leave_last_out(segue.simulate(60, 6, seed=2).dataset())


@pytest.fixture(scope="module")
def fitted(split: segue.Split) -> segue.Recommender:
    config = segue.SASRec(width=8, blocks=1, max_length=10, transitions=True)
    return segue.fit(config, split, training=segue.Training(epochs=2, validation_exclude_seen=False), quiet=True)


def test_it_is_learnt_saved_and_opened(fitted: segue.Recommender, tmp_path: Path) -> None:
    model: Any = fitted.model
    assert model.config.repeats is False and model.transitions.weight.item() != 0.5
    opened = segue.load(fitted.save(tmp_path / "run"))
    asked = {"k": 4, "exclude_seen": False}
    assert opened.recommend([1, 2, 3], **asked).equals(fitted.recommend([1, 2, 3], **asked))
    assert len(fitted.explain(1, opened.recommend([1], **asked)["item"][:1].to_list()))


def test_newer_data_and_a_start_from_it(fitted: segue.Recommender) -> None:
    newer = segue.simulate(80, 8, seed=5).dataset()
    grown = fitted.with_data(fitted.dataset.append(newer.to_frame()))
    old, new = fitted.recommend([1], k=3), grown.recommend([1], k=3)
    assert old["rank"].to_list() == new["rank"].to_list()
    before: Any = fitted.model
    after: Any = grown.model
    assert torch.equal(before.transitions.counts, after.transitions.counts)
    more = segue.leave_last_out(grown.dataset)
    options = segue.Training(epochs=1, validation_exclude_seen=False)
    started: Any = segue.fit(before.config, more, training=options, start=fitted, quiet=True).model
    assert started.transitions.counts.sum() > before.transitions.counts.sum()  # counted anew


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"loss": "bce"}, "loss='bce' is none"),
        ({"targets": "session"}, "targets='session'"),
        ({"repeats": True}, "leave one out"),
    ],
)
def test_settings_that_do_not_go_together(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        segue.SASRec(transitions=True, **given)
    assert "transitions" in str(segue.SASRec(transitions=True).why_whole())


WALKS = [[(user + step) % 12 + 1 for step in range(6)] for user in range(40)]  # no item twice, 20 interactions each


@pytest.mark.parametrize(
    ("given", "users", "expected"),
    [
        ({}, 40, True),
        ({}, 60, True),  # an item has 30 interactions
        ({}, 61, False),
        ({"transitions": True}, 61, True),
        ({"transitions": False}, 40, False),
        ({"loss": "bce"}, 40, False),
        ({"targets": "session"}, 40, False),
        ({"repeats": True}, 40, False),
    ],
)
@pytest.mark.parametrize("model", [segue.SASRec, segue.HSTU, segue.LRURec])
def test_few_interactions_of_an_item_switch_them_on(
    model: type[segue.SASRec], given: dict[str, Any], users: int, expected: bool
) -> None:
    data = make_dataset([WALKS[user % 40] for user in range(users)], catalogue=range(1, 13))
    assert model(**given).resolved(data).transitions is expected
    more = make_dataset([WALKS[user % 40] for user in range(users)], catalogue=range(1, 99))
    assert model(**given).resolved(more).transitions is expected  # items that nobody took do not count


def test_large_logs_leave_them_out(monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_dataset(WALKS, catalogue=range(1, 13))
    for most, expected in ((data.n_interactions, True), (data.n_interactions - 1, False)):
        monkeypatch.setattr(models_transitions, "MOST_COUNTED", most)
        assert segue.SASRec().resolved(data).transitions is expected
        assert segue.SASRec(transitions=True).resolved(data).transitions is True


def test_repeats_and_divided_tables_leave_them_out(tmp_path: Path) -> None:
    again = make_dataset([[1, 2, 1, 2, 3, 1]] * 9, catalogue=range(1, 13))
    chosen = segue.SASRec().resolved(again)
    assert (chosen.repeats, chosen.transitions) == (True, False)
    assert segue.SASRec(transitions=True).resolved(again).repeats is False
    assert segue.SASRec().for_division().transitions is False
    assert segue.SASRec(transitions=True).for_division().transitions is True
    data = make_dataset(WALKS, catalogue=range(1, 13))
    options = segue.Training(epochs=1, divide_tables=True)
    config = segue.SASRec(width=8, blocks=1)
    divided: Any = segue.fit(config, data, training=options, out=tmp_path / "run", quiet=True).model.config
    assert divided.transitions is False
