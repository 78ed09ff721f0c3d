"""The benchmarks of scaling: arithmetic is counted as by hand, and tables and pictures show what was measured."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import scaling_pictures
import steps
from pages import scaling as scaling_tables


class Plain(steps.Point):
    """Point of a model without repeats, which this small catalogue would otherwise bring about."""

    @property
    def config(self) -> Any:
        """Config of the model."""
        return replace(super().config, repeats=False)


POINT = Plain(length=8, width=16, items=50, targets=64, seconds=0.0)


def by_hand(rows: int, point: steps.Point) -> int:
    """Operations of a step's matrix products: 2 for each multiplication, and a backward pass costs two forward ones."""
    tokens, width = rows * point.length, point.width
    linear = 6 * width * width  # query, key, value, output, and two of the feed-forward
    attention = 2 * point.length * width
    scored = point.items if point.loss == "softmax" else point.config.negatives
    return 3 * 2 * tokens * (point.config.blocks * (linear + attention) + scored * width)


@pytest.mark.parametrize("loss", ["sampled-softmax", "softmax"])
def test_operations_are_counted_as_by_hand(loss: Any) -> None:
    point = replace(POINT, loss=loss)
    trainer, _ = steps.trained(point, steps.made_histories(point))
    counted = steps.matrix_operations(trainer, np.arange(5))
    assert sum(counted.values()) == by_hand(5, point)


def test_a_point_is_measured_in_the_process_that_it_runs_in() -> None:
    found = steps.measured(replace(POINT, seconds=0.3))
    assert found["targets_per_step"] == 64
    assert found["steps"] >= 2
    assert found["tokens_per_second"] == pytest.approx(64 / found["seconds_per_step"], rel=0.5)
    assert 0 < found["share_of_products"] < 1
    assert found["peak_mb"] > found["added_mb"]


def test_a_log_is_prepared_and_weighed() -> None:
    dataset, found = steps.prepared(steps.Point(items=300, interactions=20_000))
    ids = 8 * (dataset.n_users + dataset.n_items)
    kept = 12 * dataset.n_interactions + 8 * (dataset.n_users + 2) + ids
    assert dataset.n_interactions == 20_000
    assert found["bytes_per_interaction"] == pytest.approx(kept / 20_000, abs=0.01)
    counts = np.sort(dataset.item_counts()[1:])[::-1]
    assert counts[:30].sum() > 0.2 * counts.sum(), "popular items are popular"


def test_memory_is_that_of_this_process_and_its_peak_can_be_forgotten() -> None:
    size = 200 << 20
    before = steps.peak_memory("cpu")
    block = np.ones(size, dtype=np.uint8)
    assert steps.peak_memory("cpu") >= before
    assert steps.resident("cpu") > size / 1e6
    del block
    if Path("/proc/self/clear_refs").exists():
        steps.forget_peak("cpu")
        assert steps.peak_memory("cpu") == pytest.approx(steps.resident("cpu"), abs=20)


# ---- tables and pictures -------------------------------------------------------------------------------------------


def result(slope: float = 1e-6) -> dict[str, Any]:
    """Points as `scaling.py` stores them: a step takes 0.1 s, and `slope` more for each item."""
    common = {"precision": "no", "targets_per_step": 1_000, "added_mb": 20, "weights_gradients_moments_mb": 10.0}

    def row(axis: str, value: int, seconds: float, **more: Any) -> dict[str, Any]:
        speed = {"seconds_per_step": seconds, "tokens_per_second": 1_000 / seconds, "share_of_products": 0.25}
        return {axis: value, "loss": "sampled-softmax", **common, **speed, "products_gflops": 64.0, **more}

    catalogues = [
        row("items", n, 0.1 + slope * (n - 1_000), loss=loss)
        for loss in ("sampled-softmax", "softmax")
        for n in (1_000, 100_000, 1_000_000)
    ]
    log = {"prepare_seconds": 20.0, "prepare_added_mb": 300, "bytes_per_interaction": 12.5, "share_of_products": None}
    points = {
        "length": [row("length", 16, 0.1), row("length", 512, 0.2)],
        "width": [row("width", 64, 0.1), row("width", 128, 0.3)],
        "items": catalogues,
        "interactions": [row("interactions", n, 0.1, **log) for n in (10**5, 2 * 10**7)],
    }
    facts = {
        "date": "2026-01-01",
        "versions": {"segue": "1", "torch": "2"},
        "hardware": {"cpu": "some", "cores": 2, "threads": 1},
    }
    return {
        "base": {"length": 64, "width": 64, "items": 20_000, "targets": 1_000},
        "config": {"blocks": 2, "negatives": 512},
        "axes": {axis: {**facts, "points": rows} for axis, rows in points.items()},
    }


def test_what_grows_with_the_catalogue_is_extended_and_widened() -> None:
    axes = result()["axes"]
    assert scaling_tables.seconds_at(axes, "softmax", 64) == pytest.approx(0.1 + 1e-6 * (10**7 - 1_000))
    assert scaling_tables.seconds_at(axes, "softmax", 128) == pytest.approx(0.3 + 2 * 1e-6 * (10**7 - 1_000))


def test_the_table_of_a_larger_log_follows_from_the_points() -> None:
    page = scaling_tables.on_paper({"scaling": result()})
    rows = {cells[1].strip(): [cell.strip() for cell in cells[2:4]] for cells in map(_cells, page.splitlines())}
    assert rows["the log, in memory or on disk"] == ["12 GB", "12 GB"]
    assert rows["preparing it"] == ["17 minutes", "17 minutes"]
    assert rows["the item table"] == ["2.6 GB", "5.1 GB"]
    assert rows["with its gradient and Adam's moments"] == ["10.2 GB", "20.5 GB"]
    assert rows["a step, shared negatives"] == ["10 s", "20 s"]
    assert rows["an epoch of 1,000,000 steps, shared negatives"] == ["120 days", "230 days"]
    assert rows["ranking the targets of 10,000 users, at least"] == ["6.7 minutes", "13 minutes"]


def _cells(line: str) -> list[str]:
    return line.split("|")


def test_a_table_shows_what_was_measured_on_its_axis_and_no_more() -> None:
    page = scaling_tables.measured({"scaling": result()})
    tables = {part.split(" |")[0].removeprefix("| "): part for part in page.split("\n\n") if part.startswith("|")}
    assert list(tables) == list(scaling_tables.AXES.values())
    assert [name for name, part in tables.items() if "seconds to prepare" in part] == ["interactions in the log"]
    assert "share" not in tables["interactions in the log"]
    assert page.count("| loss |") == 1
    assert "| 1,000,000 | full softmax |" in page
    assert scaling_tables.measured({}).startswith("No results yet")


def test_the_picture_has_a_line_for_each_loss_and_leaves_out_what_failed(tmp_path: Path) -> None:
    found = result()
    points = found["axes"]["items"]["points"]
    points[-1] = {"items": 1_000_000, "loss": "softmax", "precision": "no", "failed": "out of memory"}
    lines = scaling_pictures.lines_of(points)
    assert {name: [row["items"] for row in rows] for name, rows in lines.items()} == {
        "shared negatives": [1_000, 100_000, 1_000_000],
        "full softmax": [1_000, 100_000],
    }
    figure = scaling_pictures.figure_of(found)
    assert [axes.get_title(loc="left") for axes in figure.axes[:4]] == list(scaling_pictures.TITLES.values())
    assert list(figure.axes[2].lines[1].get_ydata()) == [row["tokens_per_second"] for row in lines["full softmax"]]
    figure.savefig(tmp_path / "drawn.png")
    assert (tmp_path / "drawn.png").stat().st_size > 10_000
