"""Exports to ONNX: the same lists as those of torch, for each model that has an encoder; reading without torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import segue
from segue.data.histories import Histories
from segue.errors import ConfigError, DataError, StorageError
from segue.inference.onnx.folder import Ids
from segue.inference.onnx.reading import OnnxScorer
from segue.inference.scoring.ranking import top_k
from segue.models.base import ModelConfig
from tests.helpers import make_dataset

HISTORIES = [[1, 2, 3, 4, 5, 6], [7, 8, 9], [3, 1, 4, 1, 5], [9, 2, 6], [5, 3, 5, 8, 9, 7, 9, 3]]
TIMES = [[10 * position + row for position in range(len(history))] for row, history in enumerate(HISTORIES)]
SMALL: dict[str, Any] = {"blocks": 1, "max_length": 7}
STACKED = {**SMALL, "blocks": 2}
"""Two blocks, once for each class of blocks: the time of an export grows with their number."""
MODELS: dict[str, ModelConfig] = {
    "sasrec": segue.SASRec(width=8, repeats=False, **STACKED),
    "sasrec-one-item": segue.SASRec(width=8, blocks=1, max_length=1, repeats=False),
    "sasrec-everything": segue.SASRec(
        width=8, heads=2, norm="ligr", feed_forward="swiglu", positions="both", time_bias=True, repeats=True, **SMALL
    ),
    "sasrec-published": segue.SASRec.as_published(width=8, max_length=7),
    "sasrec-frequency": segue.SASRec(width=8, frequency=0.7, repeats=False, **SMALL),
    "sasrec-transitions": segue.SASRec(width=8, transitions=True, **SMALL),
    "ssept": segue.SSEPT(item_width=6, user_width=4, time_bias=True, repeats=False, **SMALL),
    "ssept-repeats": segue.SSEPT(item_width=6, user_width=4, loss="softmax", repeats=True, **SMALL),
    "gru4rec": segue.GRU4Rec(width=8, layers=2, max_length=7, repeats=False),
    "gru4rec-repeats": segue.GRU4Rec(width=8, max_length=7, repeats=True),
    "bert4rec": segue.BERT4Rec(width=8, repeats=True, **SMALL),
    "lrurec": segue.LRURec(width=8, repeats=False, **STACKED),
    "hstu": segue.HSTU(width=8, heads=2, repeats=False, **STACKED),
}

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def made(config: ModelConfig, ids: str = "integers") -> segue.Recommender:
    """Recommender with random weights."""
    name = (lambda item: item) if ids == "integers" else "item {}".format
    data = make_dataset(
        [[name(item) for item in row] for row in HISTORIES], TIMES, catalogue=[name(item) for item in range(1, 10)]
    )
    torch.manual_seed(3)
    model = config.resolved(data).build(data.n_users, data.n_items)
    model.prepare(data)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return segue.Recommender(model, data)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[segue.Recommender, Path]:
    """A Recommender of ids that are texts, and its export."""
    recommender = made(MODELS["sasrec"], "texts")
    return recommender, recommender.to_onnx(tmp_path_factory.mktemp("onnx") / "exported")


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_the_lists_are_those_of_torch(name: str, tmp_path: Path) -> None:
    recommender = made(MODELS[name])
    scorer = OnnxScorer.open(recommender.to_onnx(tmp_path / "out"))
    known = recommender.dataset.histories(np.arange(1, 6))
    for histories in (
        known,
        known.select(slice(1, 2)),
        Histories.from_lists([[4, 2, 9], [1]]),
        Histories.from_lists([[6]], np.array([2])),
        Histories.from_lists([[position % 7 + 1 for position in range(30)]] * 11),
    ):
        for options in ({}, {"exclude_seen": False}, {"allowed": np.arange(10) % 2 == 1}):
            codes, scores = top_k(recommender.scorer, histories, 4, **options)  # type: ignore[arg-type]
            own_codes, own_scores = scorer.top_k(histories, 4, **options)  # type: ignore[arg-type]
            np.testing.assert_array_equal(own_codes, codes)
            np.testing.assert_allclose(own_scores, scores, atol=1e-4)
        queries = scorer.queries(histories)
        items = np.tile(np.arange(1, 10), (len(histories), 1))
        np.testing.assert_allclose(scorer.score_items(queries, items), scorer.score_all(queries, 1, 10), atol=1e-5)
        np.testing.assert_allclose(
            scorer.score_all(queries, 3, 7),
            recommender.scorer.score_all(recommender.scorer.queries(histories), 3, 7).numpy(),
            atol=1e-4,
        )


@pytest.mark.slow
def test_raw_ids(exported: tuple[segue.Recommender, Path]) -> None:
    recommender, folder = exported
    reader = segue.OnnxRecommender(folder)
    histories = [["item 1", "item 2"], ["item 3", "nothing", "item 4"], ["nothing"], []]
    lists = reader.recommend(histories, k=3, deny=["item 9"])
    expected = recommender.recommend(histories=[["item 1", "item 2"], ["item 3", "item 4"]], k=3, deny=["item 9"])
    assert [pair[0] for row in lists for pair in row] == expected["item"].to_list()
    np.testing.assert_allclose([pair[1] for row in lists for pair in row], expected["score"].to_numpy(), atol=1e-4)
    assert lists[2:] == [[], []]
    assert [pair[0] for pair in reader.recommend(histories[:1], k=9, allow=["item 5"])[0]] == ["item 5"]
    assert reader.users is None
    with pytest.raises(DataError, match="one list for each user"):
        reader.recommend(["item 1"])  # type: ignore[list-item]
    with pytest.raises(DataError, match="as many users"):
        reader.recommend(histories, users=["a"])
    with pytest.raises(DataError, match="as long as"):
        reader.recommend(histories, times=[[1]])
    with pytest.raises(ConfigError, match="catalogue"):
        reader.recommend(histories, k=10)
    with pytest.raises(ConfigError, match="has no index"):
        reader.recommend(histories, k=3, approximate=True)
    with pytest.raises(DataError, match="is empty"):
        reader.scorer.queries(Histories.from_lists([[]]))


@pytest.mark.slow
def test_the_reader_imports_neither_torch_nor_polars(exported: tuple[segue.Recommender, Path]) -> None:
    program = (
        "import sys, segue\n"
        f"reader = segue.OnnxRecommender({str(exported[1])!r})\n"
        "reader.recommend([reader.items.ids[:2]], k=3)\n"
        "print({'torch', 'polars', 'scipy', 'onnx', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sasrec", "sasrec-transitions"])
def test_the_programs_of_the_readme(name: str, tmp_path: Path) -> None:
    recommender = made(MODELS[name], "texts")
    folder = recommender.to_onnx(tmp_path / "exported")
    text = (folder / "README.md").read_text(encoding="utf-8")
    history = recommender.dataset.catalogue.ids[:2].to_list()
    expected = recommender.recommend(histories=[history], k=7)["item"].to_list()
    programs = [part.split("```")[0] for part in text.split("```python\n")[1:]]
    assert len(programs) == 2
    for program in programs:
        done = subprocess.run(
            [sys.executable, "-c", program.replace("k=10", "k=7").replace("[:10]", "[:7]")],
            capture_output=True,
            text=True,
            check=True,
            cwd=folder,
        )
        at = [done.stdout.index(item) for item in expected]
        assert at == sorted(at)
    assert max(map(len, text.splitlines())) <= 120
    script = text.split("```javascript\n")[1].split("```")[0].replace("2), 10)", "2), 7)")
    if shutil.which("node") is None:
        pytest.skip("node is not installed, so the program in JavaScript was not run")
    (tmp_path / "run.js").write_text(script, encoding="utf-8")
    check = subprocess.run(["node", "--check", str(tmp_path / "run.js")], capture_output=True, text=True)
    assert check.returncode == 0, check.stderr


@pytest.mark.slow
def test_damaged_folders(exported: tuple[segue.Recommender, Path], tmp_path: Path) -> None:
    recommender, folder = exported
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / "item_ids.json").write_text("[1, 2]", encoding="utf-8")
    with pytest.raises(StorageError, match="item_ids"):
        segue.OnnxRecommender(copy)
    with pytest.raises(StorageError, match=r"no onnx\.json"):
        segue.OnnxRecommender(tmp_path)
    manifest = json.loads((folder / "onnx.json").read_text(encoding="utf-8"))
    for key, value in (("inputs", ["items", "else"]), ("offset", 3), ("items", -1), ("files", {})):
        broken = {**manifest, "files": {}, key: value}
        shutil.copyfile(folder / "item_ids.json", copy / "item_ids.json")
        (copy / "onnx.json").write_text(json.dumps(broken), encoding="utf-8")
        if key != "files":
            with pytest.raises(StorageError, match="damaged or edited"):
                segue.OnnxRecommender(copy)
    (copy / "encoder.onnx").write_bytes(b"nothing")
    with pytest.raises(StorageError, match="encoder"):
        segue.OnnxRecommender(copy)
    np.save(copy / "items.npy", np.zeros((3, 8), dtype=np.float32))
    with pytest.raises(StorageError, match="another folder"):
        segue.OnnxRecommender(copy)
    with pytest.raises(StorageError, match="already holds a onnx"):
        recommender.to_onnx(folder, overwrite=False)


@pytest.mark.parametrize(
    "config",
    [segue.Markov(), segue.EASE(), segue.ItemKNN(), segue.Popularity(), segue.VSKNN(), segue.PARSRec(item_width=8)],
    ids=lambda config: config.name,
)
def test_models_without_such_an_encoder_are_refused(config: ModelConfig, tmp_path: Path) -> None:
    data = make_dataset(HISTORIES)
    data = replace(data, session_offsets=np.union1d(data.offsets, np.arange(0, len(data.items), 2)))
    recommender = segue.fit(config, data, quiet=True, training=segue.Training(epochs=1, cpu=True))
    with pytest.raises(ConfigError, match=rf"{config.name}.*(sasrec, ssept)"):
        recommender.to_onnx(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_ids_are_read_as_vocabularies_read_them() -> None:
    values = [-3, 2, 10]
    own, vocabulary = Ids(values), segue.Vocabulary.in_order(values)
    for raw_id in (2, "2", "+2", "002", " 2", "-3", "2.0", "ten", 4, "٣", "9" * 30):
        assert own.code_of(raw_id) == vocabulary.code_of(raw_id), raw_id
    texts = Ids(["2", "tea"])
    assert texts.encode([2, "tea", "wine"]).tolist() == [1, 2, 0]
    assert texts.decode([2, 1]) == ["tea", "2"]
