from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from segue.data.dataset import Dataset
from segue.data.histories import Histories
from segue.data.transitions import count_pairs
from segue.data.vocabulary import Vocabulary
from segue.errors import ConfigError
from segue.models.markov import Markov, MarkovModel
from segue.models.popularity import Popularity, PopularityModel, RecentPopularity, popularity
from segue.models.registry import MODELS, config_class, config_from_dict
from tests.helpers import queries_of


def make(histories: list[list[int]], times: list[list[int]] | None = None, n_items: int | None = None) -> Dataset:
    lengths = [0, *map(len, histories)]
    items = np.concatenate([np.asarray(h, dtype=np.int32) for h in histories])
    n = n_items or int(items.max())
    return Dataset(
        items=items,
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        users=Vocabulary(range(len(histories))),
        catalogue=Vocabulary(range(100, 100 + n)),
        times=None if times is None else np.concatenate(times).astype(np.int64),
        time_unit=None if times is None else "s",
    )


def fitted(config: Popularity | RecentPopularity | Markov, dataset: Dataset) -> PopularityModel | MarkovModel:
    model = config.build(dataset.n_users, dataset.n_items)
    model.count(dataset)
    return model


def test_popularity_is_the_share_of_interactions() -> None:
    dataset = make([[1, 2, 2], [2, 3]])
    assert popularity(dataset) == pytest.approx([0, 0.2, 0.6, 0.2])
    model = fitted(Popularity(), dataset)
    queries = queries_of(model, dataset.histories())
    assert model.scores().all(queries, 1, 3).tolist() == [pytest.approx([0.2, 0.6])] * 2
    assert model.scores().of(queries, torch.tensor([[3], [2]])).tolist() == [[pytest.approx(0.2)], [pytest.approx(0.6)]]


def test_popularity_counts_only_the_visible_part() -> None:
    dataset = make([[1, 2, 2], [2, 3]])
    view = dataset.until(np.array([0, 1, 4]))
    assert popularity(view) == pytest.approx([0, 0.5, 0.5, 0])
    assert fitted(RecentPopularity(), view).shares[3] == 0


def test_recent_popularity_halves_with_the_half_life() -> None:
    # Ages, as shares of later interactions among the 4: 3/4, 2/4, 1/4, 0.
    dataset = make([[1, 3], [2, 4]], times=[[10, 500], [11, 900_000]])
    shares = fitted(RecentPopularity(half_life=0.25), dataset).shares.numpy()
    assert shares / shares[4] == pytest.approx([0, 1 / 8, 1 / 4, 1 / 2, 1])


def test_recent_popularity_with_equal_times_and_without_times() -> None:
    same = fitted(RecentPopularity(), make([[1, 2], [3, 2]], times=[[7, 7], [7, 7]])).shares
    assert same.tolist() == pytest.approx([0, 0.25, 0.5, 0.25])
    # Without times, the first of two interactions of a user has half of them after it.
    none = fitted(RecentPopularity(half_life=0.5), make([[1, 2], [1, 3]])).shares
    assert none.tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3])


def naive_markov(dataset: Dataset, config: Markov, history: list[int]) -> list[float]:
    counts: Counter[tuple[int, int]] = Counter()
    for user in range(1, dataset.n_users + 1):
        items = dataset.items[dataset.starts[user] : dataset.ends[user]].tolist()
        for i in range(len(items)):
            for d in range(1, config.steps + 1):
                if i + d < len(items):
                    counts[items[i], items[i + d]] += config.decay ** (d - 1)
    p = popularity(dataset).astype(float)
    newest = history[::-1][: config.steps]
    weights = [config.decay**d for d in range(len(newest))]
    scores = []
    for b in range(dataset.n_items + 1):
        total = 0.0
        for a, weight in zip(newest, weights, strict=True):
            followed = sum(value for (x, _), value in counts.items() if x == a)
            total += weight * (counts[a, b] + config.smoothing * p[b]) / (followed + config.smoothing)
        scores.append(total / sum(weights))
    return scores


@pytest.mark.parametrize("config", [Markov(), Markov(steps=1), Markov(steps=4, decay=1.0, smoothing=0.1)])
def test_markov_equals_a_plain_loop(config: Markov, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    dataset = make([rng.integers(1, 8, n).tolist() for n in (1, 2, 5, 9, 30)], n_items=9)
    dataset = dataset.until(dataset.ends - np.array([0, 0, 0, 1, 2, 3]))
    monkeypatch.setattr("segue.data.transitions._CHUNK", 7)  # to test merging
    model = fitted(config, dataset)
    histories = [[1], [9], [3, 4], [7, 1, 2, 2, 5]]
    expected = [naive_markov(dataset, config, history) for history in histories]
    queries = queries_of(model, Histories.from_lists(histories))
    scores = model.scores().all(queries, 0, 10)
    assert scores.numpy() == pytest.approx(np.array(expected), abs=1e-6)
    assert scores[:, 1:].sum(1).tolist() == pytest.approx([1.0] * 4, abs=1e-5)
    items = torch.tensor(rng.integers(0, 10, (4, 6)))
    assert torch.allclose(model.scores().of(queries, items), scores.gather(1, items))
    out = torch.full((4, 5), torch.nan)
    assert model.scores().all(queries, 3, 8, out) is out
    assert torch.equal(out, scores[:, 3:8])


def test_markov_falls_back_to_popularity_without_transitions() -> None:
    dataset = make([[1, 2, 3], [2, 3]])
    model = fitted(Markov(steps=1), dataset)
    scores = model.scores().all(queries_of(model, Histories.from_lists([[3]])), 0, 4)
    assert scores[0].tolist() == pytest.approx(popularity(dataset).tolist())


def test_markov_of_histories_too_short_to_have_transitions() -> None:
    model = fitted(Markov(), make([[1], [2], [2]]))
    assert isinstance(model, MarkovModel) and not len(model.pairs)
    queries = queries_of(model, Histories.from_lists([[1]]))
    assert model.scores().all(queries, 1, 3).tolist() == [pytest.approx([1 / 3, 2 / 3])]
    assert model.scores().of(queries, torch.tensor([[2]])).tolist() == [[pytest.approx(2 / 3)]]


def test_markov_buffers_load_into_an_empty_module(tmp_path: Path) -> None:
    dataset = make([[1, 2, 3, 1], [2, 3]])
    model = fitted(Markov(), dataset)
    other = Markov().build(dataset.n_users, dataset.n_items)
    other.load_state_dict(model.state_dict())
    for name, tensor in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor)
    damaged = {**model.state_dict(), "counts": torch.zeros(1)}
    with pytest.raises(RuntimeError, match="counts"):
        Markov().build(dataset.n_users, dataset.n_items).load_state_dict(damaged)


def test_markov_vectors_are_equal_for_equal_successors() -> None:
    dataset = make([[1, 3, 4], [2, 3, 4], [4, 1]])
    model = fitted(Markov(steps=1), dataset)
    vectors = model.item_vectors()
    assert vectors is not None
    dense = vectors.to_dense()
    assert torch.equal(dense[1], dense[2]) and not torch.equal(dense[1], dense[3])


def test_count_pairs_is_ascending_and_respects_users() -> None:
    pairs, counts = count_pairs(make([[1, 2, 1], [3, 1]]), steps=2, decay=0.5)
    assert pairs.tolist() == [1 * 4 + 1, 1 * 4 + 2, 2 * 4 + 1, 3 * 4 + 1]
    assert counts.tolist() == [0.5, 1, 1, 1]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Markov(steps=0), "steps=0: expected 1 or more"),
        (lambda: Markov(decay=0), "decay=0: expected a share above 0 to 1"),
        (lambda: Markov(smoothing=0), "smoothing=0"),
        (lambda: RecentPopularity(half_life=-1), "half_life=-1"),
        (lambda: RecentPopularity(half_life=float("nan")), "half_life=nan"),
        (lambda: config_class("markow"), "there is no model 'markow'; did you mean \"markov\""),
        (lambda: config_from_dict({"steps": 3}), "a model needs a name"),
        (lambda: config_from_dict({"name": "markov", "step": 3}), 'did you mean "steps"'),
    ],
)
def test_bad_settings_are_named(build: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build()  # type: ignore[operator]


def test_registry_names_are_the_configs_names() -> None:
    assert "markov" in MODELS and "nonsense" not in MODELS
    for name in ("popularity", "recent-popularity", "markov"):
        assert MODELS[name].name == name
        assert config_from_dict(MODELS[name]().to_dict()) == MODELS[name]()
