"""Folders that an earlier segue saved open with this one, and answer as they did."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import segue
from segue.training.checkpoint import load_checkpoint

from .saved.make import CONFIGS, answers_of, made_log, split_for, training

SAVED = Path(__file__).parent / "saved" / "format-1"
ANSWERS: dict[str, dict[str, list[dict[str, Any]]]] = json.loads((SAVED / "answers.json").read_text(encoding="utf-8"))


CHANGED = {("sasrec-times", "basket")}
"""Answers that are new on purpose: histories beside a basket keep their times, and formerly lost them."""


def check_row(found: dict[str, Any], saved: dict[str, Any]) -> None:
    """Every saved column is there: fractions to 5e-6, as processors round differently, and all else exactly."""
    for column, value in saved.items():
        expected = pytest.approx(value, rel=5e-6, abs=1e-6) if isinstance(value, float) else value
        assert found[column] == expected, (column, found, saved)


def test_every_saved_model_has_answers() -> None:
    assert ANSWERS.keys() == CONFIGS.keys()
    folders = {path.name for path in SAVED.iterdir() if path.is_dir()}
    assert folders == ANSWERS.keys() | {"dataset", "run"}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_saved_model_answers_as_it_did(name: str) -> None:
    answers = answers_of(name, segue.load(SAVED / name))
    assert answers.keys() == ANSWERS[name].keys()
    for question, rows in ANSWERS[name].items():
        assert len(answers[question]) == len(rows), question
        for found, saved in zip(answers[question], rows, strict=True):
            if (name, question) in CHANGED:
                assert found["score"] != saved["score"]
            else:
                check_row(found, saved)


def test_a_saved_dataset_is_the_one_that_its_log_gives() -> None:
    saved, prepared = segue.Dataset.open(SAVED / "dataset"), segue.prepare(SAVED / "log.csv")
    assert saved.fingerprint == prepared.fingerprint
    for array in ("items", "offsets", "times", "ratings", "session_offsets"):
        np.testing.assert_array_equal(getattr(saved, array), getattr(prepared, array), err_msg=array)
    np.testing.assert_array_equal(saved.item_histories.order, prepared.item_histories.order)
    assert saved.users.ids.to_list() == prepared.users.ids.to_list()
    assert saved.catalogue.ids.to_list() == prepared.catalogue.ids.to_list()


def test_a_saved_run_opens_at_its_best_epoch_and_at_any_that_was_kept() -> None:
    """Its model was trained as `sasrec` was, and epoch 1 was its best."""
    for recommender in (segue.load(SAVED / "run"), segue.load(SAVED / "run", epoch=1)):
        lists = json.loads(recommender.recommend(["u03", "u11", "u19"], k=4).write_json())
        assert len(lists) == len(ANSWERS["sasrec"]["recommend"])
        for found, saved in zip(lists, ANSWERS["sasrec"]["recommend"], strict=True):
            check_row(found, saved)
    last, _ = load_checkpoint(SAVED / "run" / "epochs" / "0002.safetensors")
    tensors = segue.load(SAVED / "run", epoch=2).model.state_dict()
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in last.items())


def test_a_saved_run_goes_on_as_one_that_was_never_stopped(tmp_path: Path) -> None:
    shutil.copytree(SAVED / "run", tmp_path / "run")
    split = split_for("sasrec", segue.prepare(SAVED / "log.csv"))
    longer = training(epochs=3, keep_every=1)
    for run, resume in (("run", True), ("whole", False)):
        # The run is older than repeats: it goes on without them, though the data repeat.
        config = CONFIGS["sasrec"] if resume else replace(CONFIGS["sasrec"], repeats=False)
        segue.fit(config, split, training=longer, out=tmp_path / run, resume=resume, quiet=True)
    before, resumed, whole = (
        pl.read_csv(folder / "metrics.csv").drop("seconds")
        for folder in (SAVED / "run", tmp_path / "run", tmp_path / "whole")
    )
    assert resumed["epoch"].to_list() == [1, 2, 3]
    assert resumed.head(2).equals(before)
    assert resumed["loss"].to_list() == pytest.approx(whole["loss"].to_list(), rel=1e-5)
    third, _ = load_checkpoint(tmp_path / "run" / "epochs" / "0003.safetensors")
    same, _ = load_checkpoint(tmp_path / "whole" / "epochs" / "0003.safetensors")
    assert third.keys() == same.keys()
    for name in third.keys() - {
        "encoder.blocks.0.attention.key_value.bias"
    }:  # a key's bias has rounding for a gradient
        torch.testing.assert_close(third[name], same[name], rtol=1e-4, atol=1e-6)


def test_saved_shards_open() -> None:
    shards = segue.Shards.open(SAVED.parent / "shards-1")
    whole = segue.prepare(made_log(), k_core=2)
    assert shards.n_shards == 2 and shards.merged().fingerprint == whole.fingerprint
    for number, shard in enumerate(shards):
        assert set(shards.shard_of(shard.users.ids)) == {number}
