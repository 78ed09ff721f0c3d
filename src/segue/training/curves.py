"""What a run leaves for people to look at: `metrics.csv` and `curves.png`."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from segue.files import atomic_file

Row = dict[str, float]


def write_metrics(path: Path, history: list[Row]) -> None:
    """One line per epoch: epoch, loss, seconds, and the validation metrics where there was a validation."""
    frame = pl.DataFrame(history, infer_schema_length=None).with_columns(pl.col("epoch").cast(pl.Int64))
    with atomic_file(path) as temporary:
        frame.write_csv(temporary)


def draw_curves(path: Path, history: list[Row], metric: str, best_epoch: int) -> None:
    """Loss and validation metrics per epoch, side by side, the best epoch marked."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import MaxNLocator

    names = [name for name in _names(history) if name not in ("epoch", "loss", "seconds")]
    figure, axes = plt.subplots(1, 2 if names else 1, figsize=(10 if names else 5, 3.6), squeeze=False)
    _line(axes[0, 0], history, "loss", 2.0)
    axes[0, 0].set_title("Training loss per target")
    if names:
        for name in names:
            _line(axes[0, 1], history, name, 2.4 if name == metric else 1.2)
        axes[0, 1].axvline(best_epoch, color="0.6", linestyle="--", linewidth=1, label=f"best epoch: {best_epoch}")
        axes[0, 1].set_ylim(bottom=0)
        axes[0, 1].set_title("Validation")
        axes[0, 1].legend(frameon=False)
    for axis in axes[0]:
        axis.set_xlabel("epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")
    plt.close(figure)


def _names(history: list[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in history for name in row))


def _line(axis, history: list[Row], name: str, width: float) -> None:  # type: ignore[no-untyped-def]
    points = [(row["epoch"], row[name]) for row in history if name in row]
    axis.plot(*zip(*points, strict=True), marker="." if len(points) < 40 else None, linewidth=width, label=name)
