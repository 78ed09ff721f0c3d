"""Folders that were edited and summed up again: each opens with the same answers, or is refused with a SegueError."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import segue
from segue.data.splits.registry import split_by
from segue.errors import SegueError, StorageError
from segue.files import read_json, write_json, write_manifest
from segue.training.checkpoint import load_checkpoint, save_checkpoint

from .saved.make import CONFIGS, split_for, training

SAVED = Path(__file__).parent / "saved" / "format-1"
MODELS = sorted(CONFIGS)
VALUES: list[Any] = [
    None, True, -1, 0, 1, 2, 10**12, 10**30, 0.5, -1e300, "", "x", "../x", [], [1], {}, {"a": 1}, [[[]]],
]  # fmt: skip


def seal(folder: Path) -> None:
    """Write the manifests of a folder again, with the checksums of the present files; inner folders first."""
    for name in ("dataset.json", "recommender.json"):
        for file in sorted(folder.rglob(name)):
            manifest = read_json(file)
            content = {key: value for key, value in manifest.items() if key not in ("kind", "format_version", "files")}
            write_manifest(file.parent, name, manifest["kind"], manifest["format_version"], content)


def places(content: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in JSON."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield (*above, key)
        yield from places(value, (*above, key))


def changed(content: Any, place: tuple[Any, ...], value: Any, drop: bool) -> Any:
    content = copy.deepcopy(content)
    parent = content
    for key in place[:-1]:
        parent = parent[key]
    if drop:
        del parent[place[-1]]
    else:
        parent[place[-1]] = value
    return content


def answers(recommender: segue.Recommender) -> dict[str, Any]:
    users = recommender.dataset.users.ids.to_list()[:3]
    found: dict[str, Any] = {
        "recommend": recommender.recommend(users, k=3).to_dicts(),
        "data": recommender.dataset.fingerprint,
    }
    if recommender.metadata.get("split"):
        split_by(recommender.dataset, recommender.metadata["split"])
    if recommender.dataset.ratings is not None:
        found["histories"] = recommender.dataset.item_histories.order.tolist()
    return found


def data_answers(data: segue.Dataset) -> dict[str, Any]:
    """What depends on every part, with all invariants that the rest of segue relies on."""
    assert data.offsets[0] == data.offsets[1] == 0 and data.offsets[-1] == len(data.items)
    assert (np.diff(data.offsets) >= 0).all() and ((data.items >= 1) & (data.items <= data.n_items)).all()
    assert len(data.offsets) == data.n_users + 2
    if data.session_offsets is not None:
        assert set(data.offsets) <= set(data.session_offsets) and data.sessions.lengths.min() > 0
    order = data.item_histories.order
    times = np.zeros(len(order), dtype=np.int64) if data.times is None else np.asarray(data.times)
    expected = np.lexsort((np.arange(len(order)), times, data.items))
    assert (order == expected).all()
    segue.describe(data)
    return {"frame": data.to_frame().to_dicts(), "unit": data.time_unit}


def same_or_refused(open_it: Callable[[], Any], ask: Callable[[Any], Any], before: Any = None) -> bool:
    """Open and ask; return whether it was refused. Every error but a SegueError fails."""
    try:
        after = ask(open_it())
    except SegueError:
        return True
    assert before is None or after == before
    return False


# ---- JSON -----------------------------------------------------------------------------------------------------------


def test_every_value_of_a_dataset_may_lie(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(SAVED / "dataset", folder)
    manifest, before = read_json(folder / "dataset.json"), data_answers(segue.Dataset.open(folder))
    refused = 0
    for place in places(manifest):
        if place[0] in ("metadata",) and len(place) > 1:
            continue  # what is kept there is the user's
        for value in [*VALUES, "drop"]:
            lie = changed(manifest, place, value, value == "drop")
            if lie == manifest:
                continue
            write_json(folder / "dataset.json", lie)
            kept = {**before, "unit": lie.get("time_unit")}  # another unit is another meaning, and no contradiction
            refused += same_or_refused(lambda: segue.Dataset.open(folder), data_answers, kept)
    assert refused > 500


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sasrec", "markov", "arerec", "parsrec"])
def test_every_value_of_a_recommender_may_lie(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "saved"
    shutil.copytree(SAVED / name, folder)
    manifest = read_json(folder / "recommender.json")
    free = {"metadata", "model"}  # a setting may be another one that fits the weights; then the answers differ
    before, refused = answers(segue.load(folder)), 0
    known = [
        place for place in places(manifest) if place[0] != "metadata" or place[1:2] == ("split",) or len(place) < 3
    ]
    generator = np.random.default_rng(0)
    for place in known:
        for number in generator.choice(len(VALUES) + 1, 3, replace=False):
            drop = number == len(VALUES)
            value = None if drop else VALUES[number]
            write_json(folder / "recommender.json", changed(manifest, place, value, drop))
            refused += same_or_refused(lambda: segue.load(folder), answers, None if place[0] in free else before)
    assert refused > len(known)


@pytest.mark.parametrize("setting", ["blocks", "width", "heads", "max_length", "inner_width"])
def test_an_immense_model_is_refused_before_any_work(tmp_path: Path, setting: str) -> None:
    folder = tmp_path / "saved"
    shutil.copytree(SAVED / "sasrec", folder)
    manifest = read_json(folder / "recommender.json")
    write_json(folder / "recommender.json", changed(manifest, ("model", setting), 10**9, False))
    with pytest.raises(StorageError):
        segue.load(folder)


# ---- arrays ---------------------------------------------------------------------------------------------------------


ARRAYS = ["items", "offsets", "times", "ratings", "session_offsets", "by_item"]
EXTREMES = [0, 1, -1, 2, 100, -(2**31), 2**31 - 1, 2**62, -(2**63), 2**63 - 1]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(ARRAYS),
    place=st.integers(0, 400),
    value=st.sampled_from([*EXTREMES, float("nan"), float("inf")]),
    how=st.sampled_from(["value", "swap", "shorter", "longer", "dtype", "shape", "empty", "repeat"]),
)
def test_every_array_may_lie(tmp_path: Path, name: str, place: int, value: Any, how: str) -> None:
    folder = tmp_path / "data"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(SAVED / "dataset", folder)
    file = folder / f"{name}.npy"
    array = np.load(file)
    at = place % len(array)
    if how == "value":
        with np.errstate(all="ignore"):
            array[at] = np.array(value).astype(array.dtype)
    elif how == "swap":
        array[[at, at - 1]] = array[[at - 1, at]]
    elif how == "repeat":
        array[at] = array[at - 1]
    else:
        array = {
            "shorter": array[:-1],
            "longer": np.append(array, array[-1:]),
            "dtype": array.astype(np.float64),
            "shape": array[None],
            "empty": array[:0],
        }[how]
    np.save(file, array)
    seal(folder)
    # Another item, time or rating that is possible is another Dataset, and no contradiction: it must hold together.
    same_or_refused(lambda: segue.Dataset.open(folder), data_answers)


@pytest.mark.parametrize(
    ("name", "ids"),
    [
        ("items", ["i00"] * 30),
        ("items", [f"i{n}" for n in range(29)]),
        ("items", [None, *(f"i{n}" for n in range(29))]),
        ("users", [0.5 + n for n in range(24)]),
        ("users", [f"u{n}" for n in range(25)]),
    ],
)
def test_a_vocabulary_that_lies_is_refused(tmp_path: Path, name: str, ids: list[Any]) -> None:
    folder = tmp_path / "data"
    shutil.copytree(SAVED / "dataset", folder)
    pl.DataFrame({"id": ids}).write_parquet(folder / f"{name}.parquet")
    seal(folder)
    with pytest.raises(StorageError, match=rf"{name}\.parquet"):
        segue.Dataset.open(folder)


def test_files_that_are_no_arrays_and_no_tables_are_refused(tmp_path: Path) -> None:
    for name in [*(f"{array}.npy" for array in ARRAYS), "users.parquet", "items.parquet"]:
        for content in (b"", b"x" * 300, b"\x93NUMPY\x01\x00\xff\xff{", b"PAR1" + bytes(60) + b"PAR1"):
            folder = tmp_path / "data"
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(SAVED / "dataset", folder)
            (folder / name).write_bytes(content)
            seal(folder)
            with pytest.raises(StorageError, match=name):
                segue.Dataset.open(folder)


def test_an_array_that_claims_more_than_it_has_is_refused_before_any_work(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(SAVED / "dataset", folder)
    content = (folder / "items.npy").read_bytes()
    (folder / "items.npy").write_bytes(content.replace(b"(280,), }   ", b"(99280,), } "))
    seal(folder)
    with pytest.raises(StorageError, match=r"items\.npy"):
        segue.Dataset.open(folder)


# ---- weights --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_weights_that_lie(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "saved"
    shutil.copytree(SAVED / name, folder)
    file = folder / "weights.safetensors"
    tensors = {key: tensor.clone() for key, tensor in load_file(file).items()}  # older versions map the file
    with safe_open(file, framework="pt") as stored:
        header = stored.metadata()
    generator = np.random.default_rng(1)
    refused, tried = 0, 0
    for key, tensor in tensors.items():
        for number in generator.choice(EXTREMES, 2).tolist():
            wrong = tensor.clone()
            if wrong.numel():
                at = int(generator.integers(wrong.numel()))
                limits = None if wrong.is_floating_point() or wrong.dtype == torch.bool else torch.iinfo(wrong.dtype)
                wrong.view(-1)[at] = number if limits is None else max(limits.min, min(limits.max, number))
            save_file({**tensors, key: wrong}, file, metadata=header)
            seal(folder)
            same_or_refused(lambda: segue.load(folder), answers)
        others = [tensor[:-1] if tensor.ndim else tensor[None], tensor[None], torch.cat([tensor.reshape(-1)] * 2)]
        others.append(tensor.to(torch.float64 if tensor.dtype == torch.int64 else torch.int64))
        if tensor.is_floating_point() and tensor.numel():
            others += [torch.full_like(tensor, torch.nan), torch.full_like(tensor, torch.inf)]
        for wrong in (others[number] for number in generator.choice(len(others), 2, replace=False)):
            tried += 1
            if wrong.shape == tensor.shape and wrong.dtype == tensor.dtype and torch.equal(wrong, tensor):
                continue
            save_file({**tensors, key: wrong.contiguous()}, file, metadata=header)
            seal(folder)
            refused += same_or_refused(lambda: segue.load(folder), answers)
        save_file({other: one for other, one in tensors.items() if other != key}, file, metadata=header)
        seal(folder)
        refused += same_or_refused(lambda: segue.load(folder), answers)
    assert refused > tried / 2


# ---- runs -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> Path:
    shutil.copytree(SAVED / "run", tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture(scope="module")
def split() -> segue.Split:
    return split_for("sasrec", segue.Dataset.open(SAVED / "dataset"))


def resume(run: Path, split: segue.Split, epochs: int = 2) -> segue.Recommender:
    options = training(epochs=epochs, keep_every=1)
    return segue.fit(CONFIGS["sasrec"], split, training=options, out=run, resume=True, quiet=True)


@pytest.mark.slow
@pytest.mark.parametrize("file", ["last.safetensors", "best.safetensors", "epochs/0002.safetensors"])
def test_every_value_of_a_checkpoint_may_lie(run: Path, split: segue.Split, file: str) -> None:
    tensors, note = load_checkpoint(run / file)
    epoch = {"epoch": 2} if file.startswith("epochs") else {}
    generator, refused, copied = np.random.default_rng(2), 0, run.with_name("copy")
    everything = [*places(note), *((key,) for key in tensors)]
    for index in generator.choice(len(everything), 30, replace=False):
        place = everything[index]
        kept_note, kept_tensors = note, tensors
        if place[0] in note:
            value = VALUES[generator.integers(len(VALUES))]
            kept_note = changed(note, place, value, bool(generator.integers(2)))
        else:
            other = tensors[place[0]]
            kept_tensors = {**tensors, place[0]: other.reshape(-1)[:-1] if generator.integers(2) else other[None]}
        save_checkpoint(run / file, kept_tensors, kept_note)
        if epoch:
            refused += same_or_refused(lambda: segue.load(run, **epoch), answers)
        else:
            shutil.rmtree(copied, ignore_errors=True)
            shutil.copytree(run, copied)
            refused += same_or_refused(lambda: resume(copied, split), answers)
    assert refused > 5


def other_run(tmp_path: Path, split: segue.Split, **changes: Any) -> Path:
    options = training(epochs=2, keep_every=1, **changes)
    segue.fit(CONFIGS["sasrec"], split, training=options, out=tmp_path / "other", quiet=True)
    return tmp_path / "other"


def test_the_best_weights_of_another_seed_are_refused(tmp_path: Path, run: Path, split: segue.Split) -> None:
    shutil.copy(other_run(tmp_path, split, seed=1) / "best.safetensors", run)
    with pytest.raises(StorageError, match=r"best\.safetensors is of another run than .* \(another seed\)"):
        resume(run, split, epochs=3)


def test_the_best_weights_of_another_moment_are_refused(run: Path, split: segue.Split) -> None:
    shutil.copy(run / "epochs" / "0002.safetensors", run / "best.safetensors")
    tensors, note = load_checkpoint(run / "best.safetensors")
    save_checkpoint(run / "best.safetensors", tensors, {**note, "state": {**note["state"], "best_epoch": 2}})
    with pytest.raises(StorageError, match=r"holds the weights of epoch 2, and the best epoch of .* is 1"):
        resume(run, split, epochs=3)


def test_a_kept_epoch_of_another_number_is_refused(run: Path) -> None:
    shutil.copy(run / "epochs" / "0001.safetensors", run / "epochs" / "0002.safetensors")
    with pytest.raises(StorageError, match="holds the weights of epoch 1, not of epoch 2"):
        segue.load(run, epoch=2)
    assert segue.load(run, epoch=1)


def test_a_kept_epoch_of_another_run_is_refused(tmp_path: Path, run: Path, split: segue.Split) -> None:
    shutil.copy(other_run(tmp_path, split, seed=1) / "epochs" / "0002.safetensors", run / "epochs")
    with pytest.raises(StorageError, match=r"0002\.safetensors is of another run than .* \(another seed\)"):
        segue.load(run, epoch=2)


@pytest.mark.parametrize("content", ["[]", "{}", '{"model": 3}', '{"model": {}, "split": 3}', "[" * 9999, "nothing"])
def test_a_damaged_description_of_a_run_is_refused(run: Path, split: segue.Split, content: str) -> None:
    (run / "run.json").write_text(content)
    with pytest.raises(StorageError, match=r"run\.json"):
        resume(run, split, epochs=3)
