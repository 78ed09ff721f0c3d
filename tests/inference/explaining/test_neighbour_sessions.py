from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from segue.cli.main import main
from segue.errors import ConfigError
from segue.inference.asking.everyone import EVERYONE
from segue.inference.recommender import Recommender
from segue.models.base import ModelConfig
from segue.models.popularity import Popularity
from segue.models.vsknn import VSKNN
from segue.models.vstan import VSTAN
from tests.models.baskets import DAY, fitted, world


def recommender(config: ModelConfig, **options: Any) -> Recommender:
    dataset = world().dataset(**options)
    return Recommender(fitted(config, dataset), dataset)


@pytest.mark.parametrize("config", [VSKNN(smoothing=1e-12), VSTAN(smoothing=1e-12)])
def test_terms_sum_to_the_score(config: ModelConfig) -> None:
    answers = recommender(config)
    lists = answers.recommend(EVERYONE, k=5, exclude_seen=False)
    reasons = answers.explain(lists["user"], lists["item"], by="neighbour")
    expected = ["user", "item", "score", "kind", "because", "position", "items", "time"]
    assert reasons.columns == [*expected, "similarity", "common", "share", "effect"]
    sums = reasons.group_by("user", "item").agg(pl.col("effect", "share").sum(), pl.col("score").first())
    assert sums["effect"].to_numpy() == pytest.approx(sums["score"].to_numpy(), rel=1e-4, abs=1e-6)
    assert np.allclose(sums["share"].to_numpy(), 1)
    first = reasons.filter(pl.col("user") == lists["user"][0], pl.col("item") == lists["item"][0])
    assert first["effect"].to_list() == sorted(first["effect"].to_list(), reverse=True)
    assert answers.explain(lists["user"], lists["item"], by=["neighbour"], top=1).height == len(sums)


def test_rows_name_the_session_of_a_user() -> None:
    small, answers = world(), recommender(VSKNN())
    lists = answers.recommend(EVERYONE, k=5, exclude_seen=False)
    rows = answers.explain(lists["user"], lists["item"], by="neighbour").rows(named=True)
    assert rows
    for row in rows:
        basket = small.baskets[row["because"]][row["position"] - 1]
        assert row["item"] - 99 in basket and row["items"] == len(set(basket))
        assert row["time"] == small.days[row["because"]][row["position"] - 1] * DAY
        current = set(small.baskets[row["user"]][-1])
        assert row["common"] == sorted(99 + item for item in set(basket) & current)


def test_other_questions() -> None:
    answers = recommender(VSKNN(), times=False)
    one = answers.explain(histories=[[100, 101]], items=[102, 113], by="neighbour", top=2)
    assert "time" not in one.columns and set(one["item"]) <= {102}
    in_session = answers.explain(3, 102, basket=[101], by="neighbour")
    assert all(common == [101] for common in in_session["common"].to_list())
    whole = recommender(VSKNN(unit="history")).explain(3, 102, by="neighbour")
    assert set(whole["position"]) == {1}


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (Popularity(), {"by": "neighbour"}, "has no neighbours to show"),
        (VSKNN(), {"by": ["neighbour", "item"]}, "alone"),
        (VSKNN(), {"by": "neighbour", "measure": "log-probability"}, "its term in the score"),
    ],
)
def test_refused(config: ModelConfig, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recommender(config).explain(3, 102, **options)


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(tmp_path / "run")
    recommender(VSTAN()).save(run)
    question = ["explain", run, "--user", "3", "--item", "102", "--by", "neighbour", "--top", "2"]
    assert main([*question, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert 1 <= len(rows) <= 2 and isinstance(rows[0]["common"], list)
    assert main(question) == 0
    shown = capsys.readouterr()
    assert ", ".join(map(str, rows[0]["common"])) in shown.out and "past" in shown.err
    assert main([*question, "--picture", str(tmp_path / "x.png")]) != 0
    assert "--by neighbour" in capsys.readouterr().err
