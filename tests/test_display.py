"""Results in notebooks: complete as text in a cell, tables in HTML, and progress bars without widgets."""

from __future__ import annotations

import io
import sys
import types
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import segue
from segue.display import as_html, as_text, pairs_as_html
from segue.evaluation.tasks.result import Evaluation
from segue.progress import Bar, in_notebook
from segue.training.progress import Progress
from tests import programs
from tests.inference.fakes import random_dataset


class Cell:
    """A notebook's cell: the outputs that were displayed, by number, in their last state."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.outputs: list[dict[str, str]] = []
        self.updates = 0
        shell = types.SimpleNamespace(kernel=object())
        display = types.SimpleNamespace(display=self.display)
        fake: Any = types.ModuleType("IPython")
        fake.get_ipython, fake.display = lambda: shell, display
        monkeypatch.setitem(sys.modules, "IPython", fake)

    def display(self, content: dict[str, str], raw: bool, display_id: bool) -> Any:
        number = len(self.outputs)
        self.outputs.append(content)

        def update(content: dict[str, str], raw: bool) -> None:
            self.updates += 1
            self.outputs[number] = content

        return types.SimpleNamespace(update=update)


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> Cell:
    return Cell(monkeypatch)


@pytest.fixture
def jupyter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make rich believe that it runs in Jupyter, where it sends everything to the cell instead of the file."""
    import rich.console

    monkeypatch.setattr(rich.console, "_is_jupyter", lambda: True)
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("JUPYTER_COLUMNS", "20")


def results() -> dict[str, Any]:
    data = random_dataset(40, 12, 8)
    split = segue.leave_last_out(data)
    first, second = (segue.fit(config, split) for config in (segue.Markov(), segue.Popularity()))
    one, two = (segue.evaluate(recommender, split.test, k=(3, 5)) for recommender in (first, second))
    return {
        "evaluation": one,
        "comparison": segue.compare(one, two, names=("a [red]very[/] <long> name " * 9, "b"), resamples=50),
        "description": segue.describe(data),
        "recommender": first,
        "dataset": data,
        "split": split,
        "holdout": split.test,
        "log": segue.read(pl.DataFrame({"user": [1, 2], "item": ["<a>", "b"]}), time=False),
    }


class Text(HTMLParser):
    """The cells of the tables in a page, row by row; it fails on a tag that is not closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag == "br":
            return
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def test_every_result_is_complete_in_a_notebook(jupyter: None, capsys: pytest.CaptureFixture[str]) -> None:
    for name, result in results().items():
        for text in (str(result), repr(result)):
            assert text.strip() and "…" not in text, name
        assert not capsys.readouterr().out, name
        page = Text(result._repr_html_())
        assert page.rows and page.text, name


def test_text_is_the_same_in_a_notebook(request: pytest.FixtureRequest) -> None:
    shown = {name: str(result) for name, result in results().items()}
    request.getfixturevalue("jupyter")
    assert {name: str(result) for name, result in results().items()} == shown


def test_figures_of_an_evaluation_in_html() -> None:
    evaluation = results()["evaluation"]
    page = Text(evaluation._repr_html_())
    assert page.rows[0] == ["metric", "@3", "@5"] or page.rows[0] == ["metric", "value", "@3", "@5"]
    row = next(row for row in page.rows if row[0] == "ndcg")
    assert f"{evaluation['ndcg@5']:.4f}" in row[-1]
    assert evaluation.caption in page.text
    assert repr(evaluation) == str(evaluation)


def test_names_are_not_read_as_markup() -> None:
    comparison = results()["comparison"]
    assert "[red]very[/]" in str(comparison)
    page = comparison._repr_html_()
    assert "<long>" not in page and "&lt;long&gt;" in page
    assert "a [red]very[/] <long> name" in Text(page).text


def test_sessions_of_a_comparison_have_their_own_tables() -> None:
    saved = Path(__file__).parent / "saved" / "evaluations"
    first, second = (Evaluation.load(path) for path in sorted(saved.glob("*-sessions.json"))[:2])
    comparison = segue.compare(first, second, resamples=50)
    assert comparison.sessions
    assert comparison._repr_html_().count("<table>") == 1 + len(comparison.sessions)


def test_a_wide_table_is_not_cut() -> None:
    from rich.table import Table

    table = Table(title="t")
    for number in range(60):
        table.add_column(f"column {number}")
    table.add_row(*(f"value {number} [bold]" for number in range(60)))
    assert all(f"value {number} [bold]" in as_text(table) for number in range(60))
    assert [len(row) for row in Text(as_html(table)).rows] == [60, 60]
    assert Text(pairs_as_html("<t>", {"a": "<b>"})).rows == [["a", "<b>"]]


# ---- progress -------------------------------------------------------------------------------------------------------


def test_a_notebook_is_a_shell_with_a_kernel(monkeypatch: pytest.MonkeyPatch, cell: Cell) -> None:
    assert in_notebook()
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: None)
    assert not in_notebook()
    monkeypatch.delitem(sys.modules, "IPython")
    assert not in_notebook()


def test_a_bar_in_a_cell(cell: Cell) -> None:
    with Bar("users", 200_000, delay=0.0) as bar:
        bar.advance(50_000)
        assert cell.outputs[0]["text/plain"].startswith("users 50,000 of 200,000 (25%)")
        assert '<progress value="50000" max="200000">' in cell.outputs[0]["text/html"]
        bar.set(200_000, "loss <1>")
        assert "loss &lt;1&gt;" in cell.outputs[0]["text/html"]
    assert cell.outputs == [{"text/plain": "", "text/html": ""}]


def test_short_steps_and_other_places_show_no_bar(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    with Bar("users", 10) as bar:
        bar.set(10)
    assert not cell.outputs
    monkeypatch.delitem(sys.modules, "IPython")
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with Bar("users", 10, delay=0.0) as bar:
        bar.set(5)
    assert not stream.getvalue()


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    with Bar("users", 10, delay=0.0) as bar:
        bar.set(4)
    assert "users 4 of 10 (40%)" in stream.getvalue()


def test_answers_for_many_users_show_their_progress(
    cell: Cell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recommender = segue.fit(segue.Markov(), random_dataset(60, 12, 8))
    monkeypatch.setattr(Bar.__init__, "__defaults__", (0.0,))
    for ask in (
        lambda: recommender.recommend(segue.EVERYONE, k=3),
        lambda: recommender.score(segue.EVERYONE),
        lambda: recommender.similar(k=3),
        lambda: recommender.export(tmp_path / "lists.csv", segue.EVERYONE, k=3, chunk=20),
    ):
        before, updates = len(cell.outputs), cell.updates
        ask()
        assert len(cell.outputs) == before + 1 and cell.updates > updates
        assert cell.outputs[-1]["text/plain"] == ""


def test_training_in_a_notebook_has_a_bar(cell: Cell) -> None:
    progress = Progress(quiet=False)
    progress.console.quiet = True
    progress.start_epoch(1, 3, 10, 4)
    progress.step(0.25)
    assert cell.outputs[0]["text/plain"].startswith("epoch 1 of 3: step")
    for _ in range(5):
        progress.step(0.125)
    assert "loss 0.1250" in cell.outputs[0]["text/plain"]
    progress.end_epoch({"epoch": 1.0, "loss": 0.1, "seconds": 1.0}, best=False)
    assert cell.outputs == [{"text/plain": "", "text/html": ""}]
    quiet = Progress(quiet=True)
    quiet.start_epoch(1, 1, 1, 0)
    quiet.step(0.1)
    quiet.close()
    assert len(cell.outputs) == 1


# ---- dates ----------------------------------------------------------------------------------------------------------


def log(times: Any) -> pl.DataFrame:
    items = [1, 2, 3, 4, 2, 3, 4, 1, 3, 4, 1, 2]
    return pl.DataFrame({"user": np.repeat([1, 2, 3], 4), "item": items, "time": times})


@pytest.mark.parametrize("form", ["datetime", "zone", "date", "text"])
def test_dates_come_back_as_dates(form: str, tmp_path: Path) -> None:
    days = [datetime(2020, 1, day) for day in range(1, 13)]
    frame = log(days)
    given = {
        "datetime": frame,
        "zone": frame.with_columns(pl.col("time").dt.replace_time_zone("UTC")),
        "date": frame.with_columns(pl.col("time").dt.date()),
        "text": frame.with_columns(pl.col("time").dt.to_string("%Y-%m-%d %H:%M:%S")),
    }[form]
    data = segue.prepare(given)
    assert data.to_frame()["time"].to_list() == days
    again = segue.prepare(data.to_frame())
    assert again.fingerprint == data.fingerprint
    recommender = segue.load(segue.fit(segue.Markov(), data).save(tmp_path / "saved"))
    reasons = recommender.explain(1, 3)
    assert set(reasons["time"]) <= set(days[:4]) and len(reasons)


@pytest.mark.parametrize("scale", [1, 10**3, 10**9])
def test_numbers_come_back_as_numbers(scale: int) -> None:
    times = (1_577_836_800 + 86_400 * np.arange(12)) * scale
    data = segue.prepare(log(times))
    assert data.to_frame()["time"].to_list() == times.tolist()
    assert set(segue.fit(segue.Markov(), data).explain(1, 3)["time"]) <= set(times[:4].tolist())


WITHOUT_PYARROW = """
import sys
class Missing:
    def find_spec(self, name, *rest):
        if name.partition(".")[0] == "pyarrow":
            raise ModuleNotFoundError("No module named 'pyarrow'", name="pyarrow")
sys.meta_path.insert(0, Missing())
import pandas as pd
import polars as pl
import segue

days = pd.date_range("2020-01-01", periods=12, freq="D")
columns = {"user": [u for u in (1, 2, 3) for _ in range(4)], "item": list("abcdbcdacdab"), "time": days.to_pydatetime()}
expected = segue.prepare(pl.DataFrame(columns))
plain = pd.DataFrame(columns)
frames = {
    "plain": plain,
    "zone": plain.assign(time=pd.Series(days).dt.tz_localize("UTC")),
    "nullable": plain.astype({"user": "Int64", "item": "string"}),
    "category": plain.astype({"item": "category"}),
    "text": plain.assign(time=pd.Series(days).astype(str)),
}
for name, frame in frames.items():
    assert segue.prepare(frame).fingerprint == expected.fingerprint, name
split = segue.leave_last_out(expected)
recommender = segue.fit(segue.Markov(), split)
lists = recommender.recommend(pd.Series([1, 2, 3], dtype="Int64"), k=2, exclude_seen=False)
theirs = pd.DataFrame(lists.select("user", "item", "rank").to_dict(as_series=False)).astype({"user": "Int64"})
assert segue.evaluate_lists(theirs, split.test, k=2, exclude_seen=False).metrics
given = recommender.recommend(histories=frames["nullable"], k=2, exclude_seen=False)
assert given["user"].unique().sort().to_list() == [1, 2, 3]
"""


def test_pandas_without_pyarrow() -> None:
    pytest.importorskip("pandas")
    done = programs.run("-c", WITHOUT_PYARROW)
    assert done.returncode == 0, done.stderr


def test_counted_times_stay_numbers() -> None:
    data = segue.prepare(segue.read(log(range(12)), time_unit="us"))
    assert data.to_frame().schema["time"] == pl.Int64
    assert segue.fit(segue.Markov(), data).explain(1, 3).schema["time"] == pl.Int64
