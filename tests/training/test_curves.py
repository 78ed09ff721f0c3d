"""Table and curves of a run."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from segue.training.curves import TEST, draw_curves, figure_of, write_metrics

SESSIONS = ("sess_prec@10", "step_hr@10", "step_ndcg@10")


def history(epochs: int, names: tuple[str, ...] = (), test: bool = False, every: int = 1) -> list[dict[str, float]]:
    """Rows of metrics that grow by 0.01 per epoch; those of the test part are half as large."""
    rows = []
    for epoch in range(1, epochs + 1):
        row = {"epoch": float(epoch), "loss": 5 / epoch, "seconds": 1.0}
        if epoch % every == 0:
            row |= {name: 0.01 * epoch + 0.1 * number for number, name in enumerate(names)}
            row |= {TEST + name: row[name] / 2 for name in names if test}
        rows.append(row)
    return rows


@pytest.mark.parametrize("epochs", [1, 5, 60])
@pytest.mark.parametrize("names", [("hr@10", "ndcg@10"), SESSIONS])
@pytest.mark.parametrize("test", [False, True])
def test_a_panel_for_the_loss_and_for_each_metric(epochs: int, names: tuple[str, ...], test: bool) -> None:
    rows = history(epochs, names, test)
    figure = figure_of(rows, names[0], best_epoch=epochs)
    first, *others = figure.axes
    assert first.lines[0].get_ydata().tolist() == [row["loss"] for row in rows]
    assert len(others) == len(names)
    for axes, name in zip(others, names, strict=True):
        lines = {str(line.get_label()): line for line in axes.lines}
        assert lines["validation"].get_ydata().tolist() == [row[name] for row in rows]
        assert ("test" in lines) is test
        if test:
            assert lines["test"].get_ydata().tolist() == [row[TEST + name] for row in rows]
        assert set(lines["best epoch"].get_xdata()) == {epochs}
        written = {text.get_text().strip() for text in axes.texts}
        assert written == {f"{rows[-1][key]:.4f}" for key in (name, *([TEST + name] if test else []))}
        low, high = axes.get_ylim()
        assert low < min(row[name] for row in rows) <= max(row[name] for row in rows) < high
    assert [text.get_text() for text in figure.legends[0].texts] == ["validation", *["test"] * test, "best epoch"]


def test_the_metric_that_chose_is_bold_and_named() -> None:
    figure = figure_of(history(6, SESSIONS, every=2), "step_hr@10", best_epoch=4)
    titles = {axes.get_title(loc="left"): axes for axes in figure.axes}
    assert list(titles) == [
        "Training loss per target", "Session precision@10", "Hit rate@10 per step", "NDCG@10 per step",
    ]  # fmt: skip
    bold = [title for title, axes in titles.items() if axes._left_title.get_fontweight() == "bold"]  # type: ignore[attr-defined]
    assert bold == ["Hit rate@10 per step"]
    assert figure.get_suptitle() == "Best epoch: 4 of 6, by step_hr@10 on validation"
    assert titles["Hit rate@10 per step"].lines[0].get_xdata().tolist() == [2, 4, 6]


def test_without_validation_only_the_loss_is_drawn() -> None:
    figure = figure_of(history(3), "ndcg@10", best_epoch=3)
    assert len(figure.axes) == 1
    assert figure.legends == []
    assert len(figure.axes[0].lines) == 1


def test_noise_does_not_fill_a_panel() -> None:
    rows = [{"epoch": float(epoch), "loss": 1.0, "seconds": 1.0, "hr@10": 0.5 + epoch * 1e-4} for epoch in range(1, 9)]
    low, high = figure_of(rows, "hr@10", best_epoch=8).axes[1].get_ylim()
    assert high - low > 0.05


def test_files_are_written(tmp_path: Path) -> None:
    rows = history(5, ("hr@10", "ndcg@10"), test=True, every=2)
    draw_curves(tmp_path / "curves.png", rows, "ndcg@10", best_epoch=4)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    write_metrics(tmp_path / "metrics.csv", rows)
    table = pl.read_csv(tmp_path / "metrics.csv")
    assert table.columns[-2:] == ["test hr@10", "test ndcg@10"]
    assert table["ndcg@10"].null_count() == 3


def test_lists_of_all_lengths_share_a_panel() -> None:
    names = ("rmse", "own_hr@3", "own_hr@5", "own_hr@10", "own_ndcg@3", "own_ndcg@10")
    rows = history(6, names, test=True)
    axes = figure_of(rows, "own_hr@5", best_epoch=6).axes
    assert [panel.get_title(loc="left") for panel in axes[1:]] == [
        "RMSE", "Hit rate@5 among own ratings", "NDCG@10 among own ratings",
    ]  # fmt: skip
    drawn = [list(line.get_ydata()) for line in axes[2].lines]
    assert all([row[name] for row in rows] in drawn for name in ("own_hr@3", "own_hr@5", "own_hr@10", "test own_hr@5"))
    assert {text.get_text() for text in axes[2].texts} >= {"@3", "@10"}
    lines = {str(line.get_label()): line for line in axes[2].lines}
    assert lines["validation"].get_ydata().tolist() == [row["own_hr@5"] for row in rows]
