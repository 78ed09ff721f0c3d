"""Every public call with wrong values for each of its arguments: only errors that are meant for users.

The calls and their arguments are read from `segue.__all__`. A new public name needs an entry in `CALLS`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import segue
from segue.errors import SegueError
from tests.helpers import cycle_dataset

Call = tuple[Callable[..., Any], dict[str, Any]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One value of each kind, small and valid."""
    frame = cycle_dataset().to_frame().with_columns(time=pl.int_range(pl.len()), rating=pl.lit(3.0))
    data = segue.prepare(frame.with_columns(session=pl.col("time") // 2))
    split = segue.leave_last_out(data)
    recommender = segue.fit(segue.Markov(), split)
    folder = tmp_path_factory.mktemp("world")
    recommender.save(folder / "markov")
    frame.write_csv(folder / "log.csv")
    return {
        "frame": frame,
        "data": data,
        "split": split,
        "recommender": recommender,
        "evaluation": segue.evaluate(recommender, split.test, k=3, resamples=2),
        "simulation": segue.simulate(4, 2),
        "folder": folder,
        "raters": segue.fit(segue.RatingBias(), segue.random_rows(data)),
    }


def wrong_values(world: dict[str, Any]) -> Iterator[Any]:
    """Values of all types, most of which are wrong in most places."""
    yield from (None, True, False, 0, -1, 1, 3, 10**6, 2**63, -(10**30), 0.0, 0.5, -2.5, 1e300, math.nan, math.inf)
    yield from ("", "x", "2", "\0", "\udcff", "ndcg@10", "ndcg@0", b"x", 1j, Ellipsis, object(), object, int, len)
    yield from ([], [1], ["x"], [None], [[1]], [math.nan], (), (1, 2, 3), {}, {"a": 1}, {1: [2]}, set(), {1}, range(3))
    yield from (np.int64(2), np.float32(2), np.array(2), np.arange(3), np.zeros((2, 2)), np.array(["a", None], object))
    yield from (np.datetime64("2020-01-01"), torch.zeros(2), pl.Series([1, None]), pl.DataFrame(), iter([1]))
    yield from (
        Path("nowhere") / "at" / "all",
        lambda *_: 1 / 0,
        segue.SASRec,
        segue.Markov(),
        segue.Training(epochs=1),
    )
    yield from (world[name] for name in ("frame", "data", "split", "recommender", "evaluation", "simulation"))
    yield world["split"].test


def calls(world: dict[str, Any], out: Path) -> dict[str, list[Call]]:
    """Calls of every public name, each with valid arguments to start from."""
    data, split, recommender, frame = (world[name] for name in ("data", "split", "recommender", "frame"))
    evaluation, simulation, holdout = world["evaluation"], world["simulation"], split.test
    training = segue.Training(epochs=1, cpu=True)
    lists = recommender.recommend(segue.EVERYONE, k=3)
    newer = frame.with_columns(time=1000 + pl.col("time"), session=pl.col("time"))
    configs = [
        segue.CategoryPopularity, segue.ContentNeighbours,
        segue.ARERec, segue.EASE, segue.GRU4Rec, segue.GlobalMean, segue.HSTU, segue.ItemKNN, segue.Markov,
        segue.BayesianFactorization, segue.BERT4Rec, segue.LRURec,
        segue.MatrixFactorization, segue.PARSRec, segue.PersonalFrequency, segue.TIFUKNN, segue.UPCF, segue.VSKNN,
        segue.VSTAN,
        segue.Popularity, segue.RatingBias, segue.RecentPopularity, segue.SASRec, segue.SSEPT, segue.Training,
        segue.Engine,
    ]  # fmt: skip
    products = pl.DataFrame({"item": [1, 2], "title": ["tea", "milk"]})
    truth = simulation.truth
    parted = frame.with_columns(part=pl.when(pl.col("time") % 3 > 1).then(pl.lit("test")).otherwise(pl.lit("train")))
    judged = {"recommender": recommender, "holdout": holdout, "k": 3, "resamples": 2}
    fit = {"config": segue.Markov(), "data": split, "quiet": True}
    return {
        **{config.__name__: [(config, {})] for config in configs},
        "Dataset": [
            (segue.Dataset, fields(data)),
            (segue.Dataset.open, {"path": world["folder"] / "markov" / "data"}),
            *methods(data, save={"path": out / "data"}, before={"time": 3}, timestamp={"moment": 3}),
            *methods(data, append={"source": newer}, with_items={"items": [77]}, forget={"users": [1]}),
        ],
        "Holdout": [(segue.Holdout, fields(holdout)), *methods(holdout, sample={"n": 3})],
        "Split": [(segue.Split, fields(split))],
        "Planted": [(segue.Planted, fields(truth)), *methods(truth, save={"path": out / "t.npz"})],
        "Recommender": [
            (segue.Recommender, {"model": recommender.model, "dataset": data}),
            *methods(
                recommender,
                recommend={"users": [1, 2], "k": 3},
                score={"users": [1, 2], "items": [1, 2]},
                complete={"users": 1, "n": 2},
                explain={"users": 1, "items": [1]},
                similar={"items": [1], "k": 2},
                with_events={"events": lists.select("user", "item").with_columns(time=1000 + pl.col("item"))},
                with_data={"data": data},
                add_items={"items": [77]},
                forget={"users": [1]},
                save={"path": out / "recommender"},
                export={"path": out / "lists.csv", "k": 3},
            ),
            (recommender.recommend, {"histories": [[1, 2]], "k": 3}),
            (recommender.recommend, {"users": 1, "basket": [1], "k": 3}),
            (recommender.score, {"histories": [[1, 2]], "items": [1, 2], "long": True}),
        ],
        "Simulation": [
            (segue.Simulation, fields(simulation)),
            *methods(simulation, dataset={}, save={"path": out / "log.csv"}),
        ],
        "blend": [(segue.blend, {"recommenders": [recommender, recommender], "weights": [1, 1], "quiet": True})],
        "compare": [(segue.compare, {"a": evaluation, "b": evaluation, "resamples": 2})],
        "describe": [(segue.describe, {"dataset": data})],
        "embed": [(segue.embed, {"source": products, "text": "title", "model": out / "no"})],
        "evaluate": [(segue.evaluate, judged)],
        "evaluate_lists": [(segue.evaluate_lists, {"lists": lists, "holdout": holdout, "k": 3, "resamples": 2})],
        "evaluate_ratings": [
            (
                segue.evaluate_ratings,
                {**judged, "recommender": world["raters"], "holdout": segue.random_rows(data).test},
            )
        ],
        "evaluate_baskets": [(segue.evaluate_baskets, judged)],
        "evaluate_sessions": [(segue.evaluate_sessions, judged)],
        "Results": [(segue.Results, {"evaluations": {("data", "model", 0): evaluation}})],
        "experiment": [
            (segue.experiment, {"plan": {"data": {"x": "nowhere"}, "models": {"m": "markov"}}, "out": out / "paper"})
        ],
        "fit": [
            (segue.fit, fit),
            (segue.fit, {**fit, "config": segue.SASRec(width=4, blocks=1), "training": training, "out": out / "run"}),
        ],
        "refresh": [(segue.refresh, {"dataset": out / "no", "run": out / "no", "source": frame, "quiet": True})],
        "resume": [(segue.resume, {"run": out / "nowhere", "quiet": True})],
        "given_split": [
            (segue.given_split, {"train": frame.with_columns(part=pl.lit("train")), "test": frame}),
            (segue.given_split, {"train": parted, "part": "part"}),
        ],
        "hold_out_users": [(segue.hold_out_users, {"dataset": data, "test": 0.2, "validation": 0.2})],
        "last_session_out": [(segue.last_session_out, {"dataset": data})],
        "leave_last_n": [(segue.leave_last_n, {"dataset": data, "n": 1})],
        "leave_last_out": [(segue.leave_last_out, {"dataset": data})],
        "load": [(segue.load, {"path": world["folder"] / "markov"})],
        "prepare": [(segue.prepare, {"source": frame}), (prepared_into, {"source": frame, "out": out / "prepared"})],
        "prepare_shards": [(segue.prepare_shards, {"source": frame, "out": out / "shards", "shards": 2})],
        "read": [(segue.read, {"source": frame}), (segue.read, {"source": world["folder"] / "log.csv"})],
        "random_rows": [(segue.random_rows, {"dataset": data})],
        "cold_items": [(segue.cold_items, {"dataset": data})],
        "register": [(segue.register, {"config": segue.Markov})],
        "simulate": [(segue.simulate, {"users": 2, "sessions": 2})],
        "split_for": [
            (segue.split_for, {"recommender": recommender, "data": frame, "split": {"name": "leave-last-out"}})
        ],
        "time_cut": [(segue.time_cut, {"dataset": data, "test": 0.2, "validation": 0.2})],
        "tune": [(segue.tune, {"config": segue.Markov(), "data": split, "trials": 1, "minutes": 0.002})],
        "download": [
            (
                segue.download,
                {"url": f"file://{(world['folder'] / 'markov' / 'data').resolve()}", "folder": out / "got"},
            )
        ],
        "upload": [(segue.upload, {"folder": world["folder"] / "markov" / "data", "url": f"file://{out}/store/data"})],
        "write_session_file": [(segue.write_session_file, {"dataset": data, "path": out / "s.txt", "ids": "codes"})],
    }


def prepared_into(source: Any, out: Any, overwrite: Any = None) -> Any:
    """Prepare and write; the other arguments have been tried without writing."""
    return segue.prepare(source, out=out, overwrite=overwrite)


ELSEWHERE = {
    "CountingModel", "EVERYONE", "ItemHistories", "ItemIndex", "ItemShard", "Log", "ModelConfig", "OnnxRecommender",
    "SegueError", "Sessions", "Shards", "TrainableModel", "Vocabulary", "__version__",
}  # fmt: skip
"""Bases to extend, values that calls return, and calls that have such a test of their own."""


def fields(instance: Any) -> dict[str, Any]:
    """Values of the parameters of a class that are attributes of an instance."""
    return {name: getattr(instance, name) for name in inspect.signature(type(instance)).parameters}


def methods(instance: Any, **arguments: dict[str, Any]) -> list[Call]:
    return [(getattr(instance, name), given) for name, given in arguments.items()]


def faults(call: Callable[..., Any], given: dict[str, Any], world: dict[str, Any]) -> list[str]:
    """Everything that a call raises for wrong values and that is not meant for users."""
    found = []
    for name in inspect.signature(call).parameters:
        for value in wrong_values(world):
            if name in ("progress", "on_epoch", "on_trial", "on_cell") and callable(value):
                continue  # errors of a function of the user's are the user's
            try:
                call(**{**given, name: value})
            except (SegueError, OSError):
                pass
            except Exception as error:
                found.append(f"{call.__qualname__}({name}={value!r:.60}): {type(error).__name__}: {error!s:.120}")
    return found


def test_every_public_name_is_called(world: dict[str, Any], tmp_path: Path) -> None:
    assert set(calls(world, tmp_path)) | ELSEWHERE == set(segue.__all__)
    assert not set(calls(world, tmp_path)) & ELSEWHERE


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(set(segue.__all__) - ELSEWHERE))
def test_wrong_values_of_every_argument(
    name: str, world: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = [fault for call, given in calls(world, tmp_path)[name] for fault in faults(call, given, world)]
    assert not found, "\n".join([f"{len(found)} faults", *found[:20]])
