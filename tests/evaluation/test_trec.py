"""Exports in the form of TREC: other evaluators find the same figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import segue
from segue.cli.main import main
from segue.data.splits.holdouts import Split
from segue.errors import ConfigError
from segue.evaluation.trec import write_trec

KS = [1, 5, 10]


@pytest.fixture(scope="module")
def split() -> Split:
    """Three targets of each user, some of them repeated and some seen."""
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(
        {"user": np.repeat(np.arange(60), 14), "item": rng.zipf(1.5, 840) % 40, "time": np.tile(np.arange(14), 60)}
    )
    return segue.leave_last_n(segue.prepare(frame), 3)


@pytest.fixture(scope="module", params=["ease", "popularity", "markov"])
def recommender(request: pytest.FixtureRequest, split: Split) -> segue.Recommender:
    """Popularity has many equal scores, also of targets."""
    return segue.fit(request.param, split)


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_ir_measures_finds_the_same_figures(
    split: Split, recommender: segue.Recommender, exclude_seen: bool, tmp_path: Path
) -> None:
    ir = pytest.importorskip("ir_measures")
    evaluation = segue.evaluate(recommender, split.test, k=KS, exclude_seen=exclude_seen, resamples=0)
    qrels, run = write_trec(tmp_path, recommender, split.test, evaluation)
    names = {f"{name}@{k}": f"{theirs}@{k}" for k in KS for name, theirs in _SAME.items()}
    measures = [ir.parse_measure(name) for name in names.values()]
    found = ir.calc_aggregate(measures, list(ir.read_trec_qrels(str(qrels))), list(ir.read_trec_run(str(run))))
    theirs = {str(measure): value for measure, value in found.items()}
    for own, other in names.items():
        assert evaluation[own] == pytest.approx(theirs[other], abs=1e-9), own


_SAME = {"hr": "Success", "recall": "R", "precision": "P", "ndcg": "nDCG", "mrr": "RR"}


def test_ranx_finds_the_same_figures(split: Split, recommender: segue.Recommender, tmp_path: Path) -> None:
    ranx = pytest.importorskip("ranx", reason="ranx is not installed")
    evaluation = segue.evaluate(recommender, split.test, k=KS, resamples=0)
    qrels, run = write_trec(tmp_path, recommender, split.test, evaluation)
    read: Any = ranx.Qrels.from_file(str(qrels), kind="trec"), ranx.Run.from_file(str(run), kind="trec")
    names = {"hr": "hit_rate", "recall": "recall", "precision": "precision", "ndcg": "ndcg", "mrr": "mrr"}
    for name, theirs in names.items():
        for k in KS:
            assert evaluation[f"{name}@{k}"] == pytest.approx(float(ranx.evaluate(*read, f"{theirs}@{k}")), abs=1e-9)


def test_lists_are_whole_and_hold_each_item_once(split: Split, recommender: segue.Recommender, tmp_path: Path) -> None:
    evaluation = segue.evaluate(recommender, split.test, k=5, users=20, resamples=0)
    qrels, run = write_trec(tmp_path, recommender, split.test, evaluation, depth=12)
    lists = pl.read_csv(run, separator=" ", has_header=False, new_columns=["user", "q", "item", "rank", "score", "tag"])
    assert lists["user"].n_unique() == 20 == len(evaluation.per_user)
    assert not lists.select("user", "item").is_duplicated().any()
    assert (
        lists.group_by("user").agg(pl.col("rank").sort())["rank"].list.eval(pl.element().diff()).list.max() == 1
    ).all()
    assert lists["rank"].max() == 12
    assert lists["tag"].unique().to_list() == [recommender.model.config.name]
    assert len(qrels.read_text().splitlines()) <= 60


def test_the_command_writes_both_files(
    split: Split, recommender: segue.Recommender, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recommender.save(tmp_path / "saved")
    assert main(["evaluate", str(tmp_path / "saved"), "--trec", str(tmp_path / "trec"), "--json"]) == 0
    assert sorted(one.name for one in (tmp_path / "trec").iterdir()) == ["qrels.txt", "run.txt"]
    words = ["evaluate", str(tmp_path / "saved"), "--candidates", "10", "--trec", str(tmp_path / "other")]
    assert main(words) == 2
    assert "TREC files hold a ranking of all items" in capsys.readouterr().err


def test_ids_with_blanks_are_refused(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user": ["a b"] * 4 + ["c"] * 4, "item": [1, 2, 3, 4, 4, 3, 2, 1], "time": range(8)})
    split = segue.leave_last_out(segue.prepare(frame))
    recommender = segue.fit("popularity", split)
    evaluation = segue.evaluate(recommender, split.test, k=2, resamples=0)
    with pytest.raises(ConfigError, match=r"the id 'a b' of a user has a blank in it"):
        write_trec(tmp_path, recommender, split.test, evaluation)
