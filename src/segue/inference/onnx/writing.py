"""`Recommender.to_onnx`: a folder with the encoder in ONNX, the item vectors and the ids."""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from segue.data.dataset import Dataset
from segue.data.histories import Histories
from segue.data.history_arrays import HistoryArrays, history_arrays
from segue.errors import ConfigError, StorageError
from segue.files import atomic_folder, write_manifest
from segue.inference.index import ItemIndex
from segue.inference.onnx import folder as files
from segue.inference.onnx.reading import OnnxScorer, padded_inputs
from segue.inference.onnx.readme import readme_of
from segue.inference.scorer import Scorer
from segue.models.base import Model
from segue.models.next_item import HistoryInputs
from segue.models.scores import AddedScores, ProductScores
from segue.models.sequence_model import SequenceModel

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_TOLERANCE = 1e-4
"""Largest difference, relative and absolute, of a query of the export from that of torch."""
_TRACED = 3
"""Histories of the example that is traced, and items of the longest one."""


def write_onnx(
    path: Path,
    scorer: Scorer,
    dataset: Dataset,
    index: ItemIndex | None = None,
    overwrite: bool | None = None,
    with_data: bool = False,
) -> Path:
    """Write the folder atomically, after the answers of its encoder were compared with those of the model.

    `with_data` writes the Dataset with it.

    Raises
    ------
    ConfigError
        The model has no encoder of histories with an item table, or a package is missing.
    StorageError
        `path` holds something that is no export, or the encoder gives other answers.
    """
    products = _products(scorer)
    max_length = _max_length(scorer.model)
    _require_packages()
    model = scorer.model if scorer.device.type == "cpu" else _on_cpu(scorer.model)
    transitions = model.transitions if isinstance(model, SequenceModel) else None
    repeats = transitions is None and isinstance(scorer.items, AddedScores)
    inputs = _inputs(model, repeats)
    with atomic_folder(path, files.KIND, overwrite) as folder:
        _write_encoder(folder / files.ENCODER, model, inputs, max_length, repeats)
        vectors = products.vectors.float().cpu().numpy()
        np.save(folder / files.ITEMS, vectors, allow_pickle=False)
        _write_product(folder / files.SCORES, folder / files.ITEMS, vectors)
        cold = np.zeros(0, dtype=np.int64) if model.cold is None else model.cold
        np.save(folder / files.COLD, cold.astype(np.int64), allow_pickle=False)
        if transitions is not None:
            for name, array in transitions.table()._asdict().items():
                np.save(folder / files.TRANSITIONS.format(name), array, allow_pickle=False)
        files.write_ids(folder / files.ITEM_IDS, dataset.catalogue.ids.to_list())
        if "users" in inputs:
            files.write_ids(folder / files.USER_IDS, dataset.users.ids.to_list())
        if index is not None:
            (folder / files.INDEX).mkdir()
            index.write(folder / files.INDEX)
        if with_data:
            dataset.save(folder / files.DATA)
        content = {
            "model": model.config.name,
            "settings": model.config.to_dict(),
            "users": model.n_users,
            "items": model.n_items,
            "width": products.vectors.shape[1],
            "max_length": max_length,
            "inputs": list(inputs),
            "offset": products.offset,
            "repeats": repeats,
            "transitions": None if transitions is None else float(transitions.weight.detach()),
            "indexed": index is not None,
        }
        (folder / files.README).write_text(readme_of(content), encoding="utf-8")
        write_manifest(folder, files.MANIFEST, files.KIND, files.FORMAT_VERSION, content)
        _compare(OnnxScorer.open(folder, verify=False), Scorer.of(model))
    return path


class _Encode(nn.Module):
    """Module with `encode` as its forward pass, of the inputs that the model reads; others are never looked at."""

    def __init__(self, model: Model, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, *tensors: Tensor) -> Tensor:
        """Queries (n, …) of the inputs with the names."""
        given = dict(zip(self.names, tensors, strict=True))
        inputs = HistoryInputs(*(given.get(name, given["lengths"]) for name in HistoryInputs._fields))
        if isinstance(self.model, SequenceModel) and self.model.transitions is not None:
            return self.model.plain_queries(inputs)  # the reader adds the transitions, which are a table
        return self.model.encode(inputs)


def _products(scorer: Scorer) -> ProductScores:
    """Products with the item table behind the scores of a model."""
    products, name = scorer.items.products, scorer.config.name
    if products is None or scorer.model.dense_queries or not scorer.needs_history:
        raise ConfigError(
            f"{name} has no encoder whose queries are multiplied with an item table, so there is nothing to export to "
            "ONNX: it takes sasrec, ssept, gru4rec, hstu, bert4rec, lrurec and models of your own with the same inputs."
        )
    example = scorer.model.inputs(_example(scorer.n_users, scorer.n_items, 1))
    if not isinstance(example, HistoryInputs):
        raise ConfigError(
            f"the encoder of {name} reads more than padded histories, so it cannot be exported to ONNX yet: expected "
            "sasrec, ssept, gru4rec, hstu, bert4rec or lrurec."
        )
    return products


def _max_length(model: Model) -> int:
    """Number of newest items that the encoder reads."""
    length = getattr(model.config, "max_length", None)
    if not isinstance(length, int):
        raise ConfigError(f"{model.config.name} has no option max_length, so the inputs of its encoder are not known.")
    return length


def _inputs(model: Model, repeats: bool) -> tuple[str, ...]:
    """Names of the inputs that the encoder reads."""
    read = {"items": True, "lengths": True, "users": model.personal, "repeated": repeats, "features": repeats}
    read["ages"] = bool(getattr(model.config, "time_bias", False))
    return tuple(name for name in files.INPUTS if read[name])


def _example(n_users: int, n_items: int, longest: int, n: int = _TRACED, times: bool = True) -> Histories:
    """Histories of n users, with lengths from 1 to `longest`."""
    rng = np.random.default_rng(0)
    lengths = np.maximum(1, longest - np.arange(n) % longest)
    items = [rng.integers(1, n_items + 1, length) for length in lengths]
    histories = Histories.from_lists(items, np.arange(n) % (n_users + 1))
    if not times:
        return histories
    steps = rng.integers(0, 100_000, len(histories.items)).cumsum()
    return Histories(histories.users, histories.items, histories.starts, histories.ends, steps)


def _write_encoder(path: Path, model: Model, inputs: tuple[str, ...], max_length: int, repeats: bool) -> None:
    """Write the graph of the encoder, with a free number of histories, of their items and of their repeats."""
    histories = _example(model.n_users, model.n_items, min(_TRACED, max_length))
    arrays = history_arrays(histories, max_length, "ages" in inputs, repeats)
    example = padded_inputs(arrays, max_length, repeats)
    rows = torch.export.Dim("rows")
    columns: dict[int, Any] = {0: rows}
    if max_length > 2:
        columns[1] = torch.export.Dim("length", min=2, max=max_length)
    pairs = {0: rows, 1: torch.export.Dim("repeats", min=2)}
    free = {"users": {0: rows}, "lengths": {0: rows}, "items": columns, "ages": columns}
    free |= {"repeated": pairs, "features": pairs}
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            _Encode(model, inputs).eval(),
            tuple(_tensors(example, inputs)),
            input_names=list(inputs),
            output_names=[files.OUTPUT],
            dynamic_shapes={"tensors": tuple(free[name] for name in inputs)},
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        program.save(str(path))


def _write_product(path: Path, items: Path, vectors: npt.NDArray[np.float32]) -> None:
    """Write the graph of the product of queries and item vectors, which stay in the file of the items.

    onnxruntime packs a constant factor once, so its product with a few queries takes a fraction of NumPy's time.
    """
    from onnx import TensorProto, helper

    table = TensorProto(name="items", data_type=TensorProto.FLOAT, dims=vectors.shape)
    table.data_location = TensorProto.EXTERNAL
    place = {"location": items.name, "offset": items.stat().st_size - vectors.nbytes, "length": vectors.nbytes}
    for key, value in place.items():
        table.external_data.add(key=key, value=str(value))
    size, width = vectors.shape
    graph = helper.make_graph(
        [helper.make_node("Gemm", [files.OUTPUT, "items"], ["scores"], transB=1)],
        "scores",
        [helper.make_tensor_value_info(files.OUTPUT, TensorProto.FLOAT, ["rows", width])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["rows", size])],
        [table],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 10  # every onnxruntime since 1.18 reads it
    path.write_bytes(model.SerializeToString())


def _tensors(arrays: HistoryArrays, names: tuple[str, ...]) -> Iterator[Tensor]:
    for name in names:
        array = getattr(arrays, name)
        # Equal sizes of different dimensions would be traced as one: the repeats get one more column than the items.
        if name in ("repeated", "features"):
            width = max(arrays.items.shape[1] + 1, array.shape[1] + 1)
            pad = [(0, 0), (0, width - array.shape[1]), *[(0, 0)] * (array.ndim - 2)]
            array = np.pad(array, pad, constant_values=1 if name == "features" else 0)
        yield torch.from_numpy(np.ascontiguousarray(array))


def _compare(exported: OnnxScorer, scorer: Scorer) -> None:
    """Raise a StorageError unless the exported encoder gives the queries of the model, for histories of all lengths."""
    longest = exported.max_length
    for n, length, times in ((1, 1, True), (1, longest, True), (5, 2 * longest, False), (64, longest + 3, True)):
        histories = _example(scorer.n_users, scorer.n_items, length, n, times)
        queries, expected = exported.queries(histories), scorer.queries(histories).numpy()
        columns = expected.shape[1]  # padding by repeats stands behind
        if not np.allclose(queries[:, :columns], expected, rtol=_TOLERANCE, atol=_TOLERANCE):
            worst = float(np.abs(queries[:, :columns] - expected).max())
            raise StorageError(
                f"the exported encoder of {scorer.config.name} differs from the model by up to {worst:.2g}: nothing "
                "was written. Versions of torch, onnx and onnxruntime may not go together."
            )


def _on_cpu(model: Model) -> Model:
    """A copy of a model on the CPU."""
    import copy

    return copy.deepcopy(model).cpu()


def _require_packages() -> None:
    """Raise a ConfigError if a package is missing that the export needs."""
    for package in _PACKAGES:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ConfigError(f"the export to ONNX needs {package} ({error}): pip install 'segue[onnx]'.") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out the remarks of torch's exporter about its own parts."""
    names = ("torch.onnx", "torch.onnx._internal.exporter._registration", "onnxscript", "onnx_ir")
    levels = {name: logging.getLogger(name).level for name in names}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for name in names:
                logging.getLogger(name).setLevel(logging.ERROR)
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
