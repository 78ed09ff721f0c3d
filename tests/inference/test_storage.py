from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal
from safetensors.torch import save_file

import segue
from segue.errors import StorageError
from segue.files import write_manifest
from segue.inference.recommender import Recommender
from segue.models.markov import Markov
from segue.models.sasrec import SASRec
from segue.models.ssept import SSEPT
from tests.inference.fakes import random_dataset


def markov() -> Recommender:
    data = random_dataset(20, 12, 6)
    model = Markov().build(data.n_users, data.n_items)
    model.count(data)
    return Recommender(model, data, {"note": "for a test", "figures": {"hr@10": 0.5}})


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return markov().save(tmp_path / "saved")


def seal(folder: Path, **changes: object) -> None:
    """Write the manifest again, with the checksums of the present files."""
    manifest = json.loads((folder / "recommender.json").read_text())
    content = {key: value for key, value in manifest.items() if key not in ("kind", "format_version", "files")}
    write_manifest(folder, "recommender.json", "recommender", 1, {**content, **changes})


def test_files_that_are_written(saved: Path) -> None:
    names = {file.relative_to(saved).as_posix() for file in saved.rglob("*") if file.is_file()}
    assert {"recommender.json", "weights.safetensors", "data/dataset.json"} < names
    assert {Path(name).suffix for name in names} <= {".json", ".safetensors", ".npy", ".parquet"}
    manifest = json.loads((saved / "recommender.json").read_text())
    assert manifest["kind"] == "recommender" and manifest["format_version"] == 1
    assert manifest["model"] == {"name": "markov", "steps": 3, "decay": 0.5, "smoothing": 5.0}
    assert manifest["files"].keys() == names - {"recommender.json"}


def test_round_trip(saved: Path) -> None:
    loaded = segue.load(saved)
    assert loaded.metadata == {"note": "for a test", "figures": {"hr@10": 0.5}}
    assert_frame_equal(loaded.score(segue.EVERYONE), markov().score(segue.EVERYONE), check_exact=True)
    assert not loaded.model.training


@pytest.mark.parametrize("kind", [SASRec, SSEPT])
def test_a_model_saved_before_some_settings_existed_gives_the_same_answers(
    tmp_path: Path, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Missing settings do not take their present defaults."""
    data = random_dataset(20, 12, 6)
    whole = Recommender(kind(**kind.formerly).build(data.n_users, data.n_items).eval(), data)
    whole.save(tmp_path / "old")
    settings = whole.model.config.to_dict()
    assert {"positions", "time_bias", "logq", "in_batch"} <= kind.formerly.keys() <= settings.keys()
    seal(tmp_path / "old", model={key: value for key, value in settings.items() if key not in kind.formerly})
    from_dict = kind.from_dict.__func__
    changed = {"positions": "both", "time_bias": True}
    monkeypatch.setattr(kind, "from_dict", classmethod(lambda cls, given: from_dict(cls, {**changed, **given})))
    loaded = segue.load(tmp_path / "old")
    assert loaded.model.config == whole.model.config
    assert_frame_equal(loaded.score(segue.EVERYONE), whole.score(segue.EVERYONE), check_exact=True)


def test_a_run_folder_is_opened_too(tmp_path: Path) -> None:
    markov().save(tmp_path / "run" / "recommender")
    assert segue.load(tmp_path / "run").model.config == Markov()


def test_saved_again_over_the_old_one_while_it_is_open(saved: Path) -> None:
    loaded = segue.load(saved)
    before = loaded.score(segue.EVERYONE)
    loaded.metadata["note"] = "newer"
    loaded.save(saved)
    assert segue.load(saved).metadata["note"] == "newer"
    assert_frame_equal(loaded.score(segue.EVERYONE), before)


def test_a_view_is_saved_with_its_visible_interactions(tmp_path: Path) -> None:
    whole = markov()
    view = Recommender(whole.model, whole.dataset.until(whole.dataset.ends - (whole.dataset.lengths > 0)))
    loaded = segue.load(view.save(tmp_path / "view"))
    assert_frame_equal(loaded.recommend(segue.EVERYONE, k=3), view.recommend(segue.EVERYONE, k=3))
    assert loaded.dataset.n_interactions == whole.dataset.n_interactions - 20


def test_loading_leaves_random_numbers_alone(tmp_path: Path) -> None:
    data = random_dataset(20, 12, 6)
    config = SASRec(width=8, max_length=4)
    Recommender(config.build(20, 12), data).save(tmp_path / "sasrec")
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    segue.load(tmp_path / "sasrec")
    assert torch.equal(torch.rand(3), expected)


def test_folders_of_other_programs_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(StorageError, match="was not written by segue"):
        markov().save(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_metadata_that_is_not_plain_data(saved: Path) -> None:
    loaded = segue.load(saved)
    loaded.metadata["array"] = np.zeros(3)
    with pytest.raises(StorageError, match="metadata is not plain data"):
        loaded.save(saved)
    assert "array" not in segue.load(saved).metadata
    assert [entry.name for entry in saved.parent.iterdir()] == ["saved"]


def test_missing(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="is not a folder"):
        segue.load(tmp_path / "nowhere")
    with pytest.raises(StorageError, match=r"has no recommender\.json"):
        segue.load(tmp_path)
    (saved / "weights.safetensors").unlink()
    with pytest.raises(StorageError, match=r"weights\.safetensors is missing"):
        segue.load(saved)


@pytest.mark.parametrize("name", ["weights.safetensors", "data/items.npy", "data/users.parquet"])
def test_truncated_and_altered(saved: Path, name: str) -> None:
    content = (saved / name).read_bytes()
    (saved / name).write_bytes(content[:-1])
    with pytest.raises(StorageError, match=f"{name} has .* bytes, .* it is truncated or altered"):
        segue.load(saved)
    (saved / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(StorageError, match=f"{name} does not match its checksum"):
        segue.load(saved)


def test_a_future_version(saved: Path) -> None:
    manifest = json.loads((saved / "recommender.json").read_text())
    (saved / "recommender.json").write_text(json.dumps({**manifest, "format_version": 2}))
    with pytest.raises(StorageError, match=r"format version 2; this segue reads up to 1. Upgrade segue"):
        segue.load(saved)


def test_a_manifest_that_is_no_manifest(saved: Path) -> None:
    (saved / "recommender.json").write_text("{")
    with pytest.raises(StorageError, match="not valid JSON"):
        segue.load(saved)
    (saved / "recommender.json").write_text('{"kind": "dataset"}')
    with pytest.raises(StorageError, match="does not describe a recommender"):
        segue.load(saved)


def test_a_manifest_without_the_weights(saved: Path) -> None:
    manifest = json.loads((saved / "recommender.json").read_text())
    del manifest["files"]["weights.safetensors"]
    (saved / "recommender.json").write_text(json.dumps(manifest))
    with pytest.raises(StorageError, match=r"does not list weights\.safetensors"):
        segue.load(saved)


class Bomb:
    """Object that creates a file if it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("kind", ["pickle", "torch"])
@pytest.mark.parametrize("sealed", [True, False])
def test_a_pickle_in_place_of_the_weights_is_not_opened(saved: Path, kind: str, sealed: bool) -> None:
    mark = saved.parent / "it ran"
    weights = saved / "weights.safetensors"
    if kind == "pickle":
        weights.write_bytes(pickle.dumps(Bomb(mark)))
    else:
        torch.save({"bomb": Bomb(mark)}, weights)
    if sealed:
        seal(saved)
    with pytest.raises(StorageError, match=r"is a pickle or a file of torch.save"):
        segue.load(saved)
    assert not mark.exists()


def test_a_file_in_place_of_a_folder(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1)}, tmp_path / "model.pt")
    with pytest.raises(StorageError, match=r"model\.pt is a file: expected the folder .* opens no pickles"):
        segue.load(tmp_path / "model.pt")


def test_weights_that_are_not_safetensors(saved: Path) -> None:
    (saved / "weights.safetensors").write_bytes(b"nothing of the kind")
    seal(saved)
    with pytest.raises(StorageError, match="is not a readable safetensors file"):
        segue.load(saved)


def test_weights_that_do_not_fit(saved: Path) -> None:
    save_file({"shares": torch.zeros(13), "extra": torch.zeros(1)}, saved / "weights.safetensors")
    seal(saved)
    with pytest.raises(StorageError, match=r"'markov': missing .*counts.*pairs.*totals.*, unexpected \['extra'\]"):
        segue.load(saved)
    save_file({"shares": torch.zeros(3)}, saved / "weights.safetensors")
    seal(saved)
    with pytest.raises(StorageError, match=r"does not fit the model 'markov': .*size mismatch for shares"):
        segue.load(saved)


def test_a_model_of_another_dataset(saved: Path) -> None:
    seal(saved, users=21)
    with pytest.raises(StorageError, match="a model of 21 users and 12 items with a Dataset of 20 and 12"):
        segue.load(saved)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"name": "markow"}, "there is no model 'markow'; did you mean \"markov\""),
        ({"name": "markov", "step": 1}, 'did you mean "steps"'),
        ({"name": "markov", "steps": 0}, "steps=0"),
        ({}, "a model needs a name"),
        ("markov", "does not describe a model"),
    ],
)
def test_a_model_that_this_segue_does_not_know(saved: Path, model: object, message: str) -> None:
    seal(saved, model=model)
    with pytest.raises(StorageError, match=message):
        segue.load(saved)


def test_ids_in_order_of_arrival_get_the_same_answers_before_and_after_saving(tmp_path: Path) -> None:
    data = random_dataset(20, 12, 6)
    moved = np.append(0, np.random.default_rng(3).permutation(12) + 1)  # new code of each old code
    ids = data.catalogue.ids.gather(np.argsort(moved[1:]))
    arrived = replace(data, items=moved[data.items].astype(np.int32), catalogue=segue.Vocabulary.in_order(ids))
    models = []
    for dataset in (data, arrived):
        model = Markov().build(dataset.n_users, dataset.n_items)
        model.count(dataset)
        models.append(Recommender(model, dataset))
    loaded = segue.load(models[1].save(tmp_path / "arrived"))
    assert json.loads((tmp_path / "arrived" / "data" / "dataset.json").read_text())["format_version"] == 2
    basket = {5: [ids[0], ids[3]], 2: [ids[1]]}
    for recommender in (models[1], loaded):
        assert_frame_equal(
            recommender.score(segue.EVERYONE, ids[:4].to_list()).select(["user", *map(str, ids[:4])]),
            models[0].score(segue.EVERYONE, ids[:4].to_list()).select(["user", *map(str, ids[:4])]),
        )
        scores = [r.recommend([5, 2], k=3, basket=basket).select("user", "score") for r in (recommender, models[0])]
        assert_frame_equal(*scores)
        assert_frame_equal(
            *(r.explain([5, 2, 5], ids[4], basket=basket).sort(pl.all()) for r in (recommender, models[0]))
        )
