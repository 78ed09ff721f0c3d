"""Tables of several models, data sets and seeds."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import segue
from segue.errors import ConfigError, EvaluationError
from segue.evaluation.compare import compare
from segue.evaluation.results import FILES, holm
from segue.evaluation.tasks.result import Evaluation
from tests.helpers import make_dataset

Key = tuple[str, str, int]


@pytest.fixture(scope="module")
def evaluations() -> dict[Key, Evaluation]:
    """Two data sets; "chance" differs from seed to seed, the others do not."""
    made: dict[Key, Evaluation] = {}
    for number, data in enumerate(("walks", "noise_1")):
        rng = np.random.default_rng(number)
        walks = (rng.integers(0, 12, 40)[:, None] + np.arange(6)) % 12 + 1
        rows = walks if not number else rng.permuted(walks, axis=1)
        split = segue.leave_last_out(make_dataset(rows.tolist(), catalogue=range(1, 13)))
        for model in ("markov", "popularity"):
            found = segue.evaluate(segue.fit(model, split), split.test, k=[1, 3], resamples=20)
            made[data, model, 0] = found
        for seed in range(3):
            draws = np.random.default_rng(seed).permuted(np.tile(np.arange(1, 13), (40, 1)), axis=1)[:, :3]
            users = np.repeat(split.dataset.users.decode(split.test.users).to_numpy(), 3)
            lists = pl.DataFrame({"user": users, "item": draws.ravel(), "rank": np.tile([1, 2, 3], 40)})
            made[data, "chance", seed] = segue.evaluate_lists(
                lists, split.test, k=[1, 3], name="chance", exclude_seen=False, resamples=20
            )
            made[data, "chance", seed] = _as(made[data, "chance", seed], made[data, "markov", 0].protocol)
    return made


def _as(evaluation: Evaluation, protocol: Mapping[str, Any]) -> Evaluation:
    from dataclasses import replace

    return replace(evaluation, protocol=protocol)


@pytest.fixture(scope="module")
def results(evaluations: dict[Key, Evaluation]) -> segue.Results:
    return segue.Results(evaluations, metrics=["hr@1", "ndcg@3"])


def test_holm_by_hand() -> None:
    """Sorted p times n, n − 1, …, never falling, at most 1."""
    assert holm(np.array([0.04, 0.01, 0.03, 0.9])).tolist() == pytest.approx([0.09, 0.04, 0.09, 0.9])
    assert holm(np.array([0.5, 0.6])).tolist() == pytest.approx([1.0, 1.0])
    assert holm(np.array([])).tolist() == []


def test_means_and_deviations_are_those_of_the_seeds(
    results: segue.Results, evaluations: dict[Key, Evaluation]
) -> None:
    frame = results.to_frame()
    row = frame.filter((pl.col("data") == "walks") & (pl.col("model") == "chance") & (pl.col("metric") == "hr@1"))
    values = [evaluations["walks", "chance", seed]["hr@1"] for seed in range(3)]
    assert row["mean"].item() == pytest.approx(np.mean(values))
    assert row["sd"].item() == pytest.approx(np.std(values, ddof=1))
    assert row["seeds"].item() == 3
    assert frame.filter(pl.col("model") == "markov")["sd"].null_count() == 4
    assert len(frame) == 2 * 3 * 2


def test_models_are_tested_on_the_same_users_with_values_averaged_over_the_seeds(
    results: segue.Results, evaluations: dict[Key, Evaluation]
) -> None:
    frame = results.to_frame()
    assert results.references["walks"] == "markov"
    row = frame.filter((pl.col("data") == "walks") & (pl.col("model") == "chance") & (pl.col("metric") == "ndcg@3"))
    users = [evaluations["walks", "chance", seed].per_user["ndcg@3"].to_numpy() for seed in range(3)]
    change = np.mean(users, axis=0) - evaluations["walks", "markov", 0].per_user["ndcg@3"].to_numpy()
    assert row["difference"].item() == pytest.approx(change.mean())
    assert row["low"].item() < change.mean() < row["high"].item() < 0
    single = compare(evaluations["walks", "markov", 0], evaluations["walks", "popularity", 0], metric="ndcg@3")
    own = frame.filter((pl.col("data") == "walks") & (pl.col("model") == "popularity") & (pl.col("metric") == "ndcg@3"))
    assert own["p"].item() == single["ndcg@3"].p_value
    for name in ("hr@1", "ndcg@3"):
        family = frame.filter((pl.col("metric") == name) & pl.col("p").is_not_null())
        assert len(family) == 4
        assert family["p_holm"].to_list() == pytest.approx(holm(family["p"].to_numpy()).tolist())
    assert frame.filter(pl.col("model") == pl.col("reference"))["p"].null_count() == 4


def test_the_baseline_can_be_named(evaluations: dict[Key, Evaluation]) -> None:
    results = segue.Results(evaluations, metrics="hr@1", baseline="popularity")
    assert set(results.to_frame()["reference"]) == {"popularity"}
    assert "differs from popularity" in results.note


def test_the_tables_say_the_same_in_every_form(results: segue.Results, tmp_path: Path) -> None:
    paths = results.write(tmp_path / "out")
    assert [path.name for path in paths] == list(FILES) and all(path.is_file() for path in paths)
    markdown, latex = results.to_markdown(), results.to_latex()
    assert markdown.splitlines()[0].count("|") == 6
    means = [f"{value:.4f}" for value in results.to_frame()["mean"]]
    with paths[2].open() as stream:
        assert [f"{float(row['mean']):.4f}" for row in csv.DictReader(stream)] == means
    page = paths[3].read_text()
    for text in (markdown, latex, page, str(results)):
        assert all(mean in text for mean in means)
    for part in ("\\toprule", "\\midrule", "\\bottomrule", "\\cmidrule(lr){2-3}", "noise\\_1", "\\pm", "\\mathbf{"):
        assert part in latex
    assert "**1.0000**" in markdown and "†" in markdown and "Holm" in markdown
    assert "<svg" in page and "<script" not in page and "<table" in results._repr_html_()
    assert paths[4].read_bytes().startswith(b"\x89PNG")
    assert len(results.plot().axes) == 4


def test_files_of_an_experiment_are_found_again(
    evaluations: dict[Key, Evaluation], results: segue.Results, tmp_path: Path
) -> None:
    for (data, model, seed), evaluation in evaluations.items():
        place = tmp_path / data / model
        place.mkdir(parents=True, exist_ok=True)
        evaluation.save(place / f"seed-{seed}.json")
    again = segue.Results.load(tmp_path, metrics=["hr@1", "ndcg@3"])
    keys = ["data", "model", "metric"]
    assert again.to_frame().sort(keys).equals(results.to_frame().sort(keys))
    with pytest.raises(ConfigError, match="holds no evaluation"):
        segue.Results.load(tmp_path / "walks")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": ["hr@2"]}, r"not every evaluation has 'hr@2'; did you mean"),
        ({"metrics": []}, "expected at least one metric"),
        ({"baseline": "markow"}, r"none of the models; did you mean .markov"),
        ({"level": 2.0}, "level=2.0"),
    ],
)
def test_impossible_options_are_refused(
    evaluations: dict[Key, Evaluation], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        segue.Results(evaluations, **options)


def test_evaluations_that_cannot_be_compared_are_refused(evaluations: dict[Key, Evaluation]) -> None:
    with pytest.raises(ConfigError, match="at least one evaluation"):
        segue.Results({})
    with pytest.raises(ConfigError, match=r"the key 'a': expected \(data set, model, seed\)"):
        segue.Results({"a": next(iter(evaluations.values()))})
    other = evaluations["noise_1", "markov", 0]
    with pytest.raises(EvaluationError, match="cannot be compared"):
        segue.Results({("walks", "a", 0): evaluations["walks", "markov", 0], ("walks", "b", 0): other})
