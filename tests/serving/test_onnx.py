"""`segue serve --engine onnx`: the answers of torch, in a process in which torch cannot be imported."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import segue
from segue.cli.main import main
from segue.errors import ConfigError, StorageError
from segue.files import read_json, write_manifest
from segue.inference.onnx import folder as files
from tests.serving.servers import Server, serving
from tests.serving.test_parity import world

pytest.importorskip("onnxruntime", reason="segue[onnx] is not installed")
pytest.importorskip("onnxscript", reason="segue[onnx] is not installed")

CONFIGS: dict[str, segue.ModelConfig] = {
    "sasrec": segue.SASRec(width=8, blocks=1, max_length=6, repeats=True),
    "ssept": segue.SSEPT(item_width=8, user_width=4, blocks=1, max_length=6, repeats=False),
}


class Folders(dict[str, tuple[Path, Path]]):
    """A run and its export of each model, made when one is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data = folder, world(rated=False)

    def __missing__(self, name: str) -> tuple[Path, Path]:
        run, exported = self.folder / name, self.folder / f"{name}-onnx"
        segue.fit(CONFIGS[name], self.data, training=segue.Training(epochs=1, cpu=True), quiet=True).save(run)
        assert main(["export", str(run), "--out", str(exported), "--with-data", "--json"]) == 0
        self[name] = run, exported
        return self[name]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return Folders(tmp_path_factory.mktemp("exports"))


@pytest.fixture(scope="module")
def no_torch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a module `torch` that cannot be imported."""
    folder = tmp_path_factory.mktemp("no-torch")
    (folder / "torch.py").write_text('raise ImportError("this process has no torch")\n')
    return folder


@pytest.fixture(scope="module", params=list(CONFIGS))
def both(
    request: pytest.FixtureRequest, folders: Folders, no_torch: Path, tmp_path_factory: Any
) -> Iterator[tuple[Server, Server]]:
    """A server of torch and one without, of the same model, on stores of their own."""
    run, exported = folders[request.param]
    place = tmp_path_factory.mktemp("stores")
    with (
        serving(run, f"sqlite:///{place / 'torch.db'}") as torch,
        serving(exported, f"sqlite:///{place / 'onnx.db'}", "--engine", "onnx", before=no_torch) as onnx,
    ):
        yield torch, onnx


QUESTIONS: list[dict[str, Any]] = [
    {"user": 7},
    {"user": "9", "k": 50},
    {"user": "nobody", "k": 5},
    {"history": [3, 5, 8, 13], "k": 3},
    {"history": [{"item": 3, "time": 1_700_000_000}, {"item": 5, "time": 1_700_000_100}], "k": 4},
    {"user": 7, "basket": [11, 12], "k": 6},
    {"user": 7, "exclude_seen": False},
    {"user": 7, "allow": [1, 2, 3, 400, 30], "k": 4},
    {"user": 7, "deny": list(range(1, 300)), "k": 20},
    {"user": "nobody", "deny": [1, 2, 3]},
    {"user": 7, "where": "price < 20", "k": 15},
    {"user": 8, "boost": {"category": {"tea": 0.5}}, "k": 15},
    {"user": 8, "at_most": {"category": 2}, "k": 6},
    {"user": 8, "diversity": 0.4, "k": 6},
    {"user": 8, "k": 3, "show": ["price", "title"]},
    {"user": 7, "k": 380},
]


def test_lists_are_those_of_torch(both: tuple[Server, Server]) -> None:
    torch, onnx = both
    for question in QUESTIONS:
        same(torch.post("recommend", question), onnx.post("recommend", question))
    together = {"requests": [question for question in QUESTIONS if question.get("k") != 380]}
    answers = [server.post("recommend/batch", together)["answers"] for server in both]
    for expected, answer in zip(*answers, strict=True):
        same(expected["recommendation"], answer["recommendation"])


def same(expected: dict[str, Any], answer: dict[str, Any]) -> None:
    """Two answers hold the same items, titles and columns, and scores that differ by rounding."""
    assert answer["model"] == expected["model"]
    items, expected_items = answer["items"], expected["items"]
    scores = np.array([[one["score"] for one in part] for part in (items, expected_items)])
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-4, atol=1e-5)
    kept = [{key: value for key, value in one.items() if key != "score"} for one in items]
    assert kept == [{key: value for key, value in one.items() if key != "score"} for one in expected_items]


def test_events_change_the_next_list(both: tuple[Server, Server]) -> None:
    before = [server.post("recommend", {"user": "guest"}) for server in both]
    assert before[1]["model"] == "popularity"
    for item in (4, 17, 5, 2, 39):
        answers = []
        for server in both:
            server.post("events", {"user": "guest", "item": item, "time": 1_800_000_000 + item})
            answers.append(server.post("recommend", {"user": "guest"}))
        same(*answers)
        assert answers[1]["model"] != "popularity"
    history = both[1].ask("GET", "/v1/users/guest")[1]["history"]
    assert sorted(one["item"] for one in history) == [2, 4, 5, 17, 39]
    both[1].post("events", {"user": 7, "item": 350})
    assert 350 not in both[1].items(user=7, k=380)


def test_what_needs_torch_is_refused_as_a_problem(both: tuple[Server, Server]) -> None:
    onnx = both[1]
    for method, path, body in (
        ("POST", "/v1/score", {"user": 7, "items": [1]}),
        ("POST", "/v1/similar", {"items": [1]}),
        ("POST", "/v1/complete", {"user": 7}),
        ("POST", "/v1/explain", {"user": 7, "items": [1]}),
        ("POST", "/v1/recommend", {"user": 7, "explain": 2}),
        ("POST", "/v1/recommend", {"user": 7, "as_of": 1_600_500_000}),
        ("PUT", "/v1/items", {"item": 9_999}),
    ):
        status, problem, headers = onnx.ask(method, path, body)
        assert (status, problem["status"]) == (501, 501), (path, problem)
        assert headers["content-type"] == "application/problem+json" and "--engine onnx" in problem["detail"]
    assert onnx.ask("GET", "/v1/items/3")[1]["title"] == "Item <3>"
    assert onnx.ask("GET", "/v1/models")[1]["models"][0]["settings"]["max_length"] == 6
    described = onnx.ask("GET", "/openapi.json")[1]["paths"]["/v1/score"]["post"]["responses"]
    assert "501" in described


def test_items_that_another_server_put_are_left_out(folders: Folders, no_torch: Path, tmp_path: Path) -> None:
    run, exported = folders["sasrec"]
    store = f"sqlite:///{tmp_path / 'events.db'}"
    with serving(run, store) as torch:
        torch.ask("PUT", "/v1/items", [{"item": 9_999}, {"item": 3, "title": "Another"}])
        torch.post("events", {"user": "guest", "item": 9_999})
        torch.post("events", {"user": "guest", "item": 3})
    with serving(exported, store, "--engine", "onnx", before=no_torch) as onnx:
        assert onnx.ask("GET", "/v1/items/3")[1]["title"] == "Another"
        assert onnx.ask("GET", "/v1/items/9999")[0] == 404
        assert onnx.post("recommend", {"user": "guest"})["model"] == "sasrec"


def test_the_dataset_must_be_there_and_be_the_one_of_the_run(folders: Folders, tmp_path: Path) -> None:
    from segue.serving.onnx_served import open_export

    run, exported = folders["sasrec"]
    bare = shutil.copytree(exported, tmp_path / "bare", ignore=shutil.ignore_patterns(files.DATA))
    manifest = read_json(bare / files.MANIFEST)
    content = {key: value for key, value in manifest.items() if key not in ("kind", "format_version", "files")}
    write_manifest(bare, files.MANIFEST, files.KIND, files.FORMAT_VERSION, content)
    with pytest.raises(ConfigError, match=r"holds no Dataset.*--with-data.*--data"):
        open_export(bare, "bare", None, None, 0, None, 1)
    segue.prepare(pl.DataFrame({"user": ["a", "a"], "item": ["x", "y"]}), duplicates="keep").save(tmp_path / "other")
    with pytest.raises(StorageError, match=r"has 2 items, and the export in .* has 420"):
        open_export(bare, "bare", None, None, 0, tmp_path / "other", 1)
    served = open_export(bare, "bare", None, None, 0, run / "data", 1)
    assert served.n_items == 420 and served.name == "sasrec"


def test_options_of_the_other_engine_are_refused(
    folders: Folders, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, exported = folders["sasrec"]
    store = ["--store", f"sqlite:///{tmp_path / 'events.db'}", "--port", "0"]
    assert main(["serve", str(run), *store, "--data", str(run / "data")]) != 0
    assert "--data names the Dataset of exports" in capsys.readouterr().err
    assert main(["export", str(run), "--out", str(tmp_path / "index"), "--to", "index", "--with-data"]) != 0
    assert "--with-data belongs to --to onnx" in capsys.readouterr().err
    assert json.loads((exported / "onnx.json").read_text())["model"] == "sasrec"
