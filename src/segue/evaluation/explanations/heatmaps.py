"""Heat maps of explanations: of one question, or of averages by category and group."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.errors import ConfigError
from segue.evaluation.explanations.category_maps import CategoryMaps
from segue.files import write_picture

Floats = npt.NDArray[np.float64]

_SHARE_SHOWN = 98
"""Percentile of the absolute values at which the scale ends, so that a few extremes do not bleach the rest."""
_EFFECTS, _WEIGHTS = "RdBu_r", "Purples"


def draw_reasons(
    path: str | Path, reasons: pl.DataFrame, attention: pl.DataFrame | None = None, *, most: int = 12
) -> None:
    """Draw the reasons of one question (rows) for its suggestions (columns), and the attention of each head.

    Parameters
    ----------
    path
        A PNG file.
    reasons
        Result of `Recommender.explain` for one user and several items.
    attention
        Result of `Recommender.attention` for the same user, if the model has attention.
    most
        Largest number of earlier sessions and items of the history; those with the largest effects stay. The
        whole basket is drawn.
    """
    items = reasons["item"].unique(maintain_order=True)
    labelled = _largest(reasons.with_columns(row=_label(), order=_order()), most)
    rows = labelled.select("row", "order").unique(maintain_order=True).sort("order")["row"]
    effects = _grid(labelled, "row", rows, "item", items, "effect")
    if attention is not None and len(attention):
        weights = attention.with_columns(row=_label(), head=pl.format("block {} head {}", "block", "head"))
        heads = weights["head"].unique(maintain_order=True)
        panels = [_grid(weights, "row", rows, "head", heads, "weight"), effects]
    else:
        heads, panels = None, [effects]
    plt = _pyplot()
    widths = [panel.shape[1] for panel in panels]
    size = (3.2 + 0.62 * sum(widths) + 1.2 * len(panels), 1.9 + 0.34 * len(rows))
    figure, axes = plt.subplots(
        1, len(panels), figsize=size, squeeze=False, width_ratios=widths, layout="constrained", sharey=True
    )
    if heads is not None:
        image = _heat(axes[0, 0], panels[0], 0, max(float(np.nanmax(panels[0], initial=0)), 1e-9), _WEIGHTS, "{:.2f}")
        _ticks(axes[0, 0], heads, rows, "attention")
        figure.colorbar(image, ax=axes[0, 0], fraction=0.08, label="weight")
    limit = max(float(np.nanmax(np.abs(effects), initial=0)), 1e-9)
    image = _heat(axes[0, -1], effects, -limit, limit, _EFFECTS, "{:+.2f}")
    _ticks(axes[0, -1], items, rows, "leave-one-out: what each drew")
    figure.colorbar(image, ax=axes[0, -1], fraction=0.05, label="effect on the suggestion")
    _save(figure, path)


def draw_maps(path: str | Path, maps: CategoryMaps, of: str = "effects") -> None:
    """Draw averages by category, a panel per group, and the difference of two groups.

    Parameters
    ----------
    path
        A PNG file.
    maps
        Result of `category_maps`.
    of
        "effects", or "attention", which is drawn as the difference from an even share.

    Raises
    ------
    ConfigError
        `of` is "attention", and the model has none.
    """
    values = maps.effects if of == "effects" else _above_even(maps.attention)
    panels = [*values, *([values[0] - values[1]] if len(values) == 2 else [])]
    titles = [*maps.groups, *([f"{maps.groups[0]} less {maps.groups[1]}"] if len(values) == 2 else [])]
    limit = _limit(np.stack(panels))
    plt = _pyplot()
    size = max(3.6, 0.24 * len(maps.categories) + 1.4)
    figure, axes = plt.subplots(
        1, len(panels), figsize=(size * len(panels) + 1.2, size + 0.4), squeeze=False, layout="constrained", sharey=True
    )
    for axis, panel, title in zip(axes[0], panels, titles, strict=True):
        image = _heat(axis, panel, -limit, limit, _EFFECTS, None)
        _ticks(axis, maps.categories, maps.categories, title)
        axis.set_xlabel("drawn")
    axes[0, 0].set_ylabel("in the basket")
    label = "effect on the log-probability" if of == "effects" else "attention above an even share"
    figure.colorbar(image, ax=axes[0].tolist(), fraction=0.04, shrink=0.85, label=label, extend="both")
    _save(figure, path)


# ---- within --------------------------------------------------------------------------------------------------------


def _above_even(attention: Floats | None) -> Floats:
    if attention is None:
        raise ConfigError("this model has no attention: draw its effects.")
    return attention - 1


def _limit(panels: Floats) -> float:
    """End of the symmetric scale; effects of items on their own category do not count."""
    off = panels[:, ~np.eye(panels.shape[1], dtype=bool)]
    known = np.abs(off[np.isfinite(off)])
    return max(float(np.percentile(known, _SHARE_SHOWN)), 1e-9) if len(known) else 1.0


def _largest(reasons: pl.DataFrame, most: int) -> pl.DataFrame:
    """The reasons with the `most` earlier sessions and items of the history that have the largest effects."""
    earlier = pl.col("kind").is_in(["session", "item", "repeats"])
    sizes = reasons.filter(earlier).group_by("order").agg(size=pl.col("effect").abs().max())
    kept = sizes.sort("size", "order", descending=[True, False]).head(most)["order"].to_list()
    return reasons.filter(~earlier | pl.col("order").is_in(kept))


def _label() -> pl.Expr:
    """Label of a row of reasons."""
    session = pl.format("session {}", pl.col("position"))
    item = pl.col("because").cast(pl.String)
    return (
        pl.when(pl.col("kind") == "user")
        .then(pl.lit("the user"))
        .when(pl.col("kind") == "session")
        .then(session)
        .when(pl.col("kind").is_in(["item", "repeats"]))
        .then(pl.format("{} ({})", item, pl.col("position")))
        .otherwise(item)
    )


def _order() -> pl.Expr:
    """Order of the rows: baskets, then the user, then sessions and items, the newest first."""
    rank = pl.col("kind").replace_strict(
        {"basket": 0, "user": 1, "session": 2, "item": 3, "repeats": 3}, return_dtype=pl.Int64
    )
    position = pl.col("position").fill_null(0)
    return rank * (1 << 40) + pl.when(pl.col("kind") == "basket").then(position).otherwise(-position)


def _grid(
    frame: pl.DataFrame, row: str, rows: Sequence[Any] | pl.Series, column: str, columns: pl.Series, value: str
) -> Floats:
    """Matrix (rows, columns) of the values of a long frame; NaN if the frame has none."""
    index = [
        frame[name].replace_strict(pl.Series(known), pl.Series(range(len(known))), default=-1).to_numpy()
        for name, known in ((row, rows), (column, columns))
    ]
    grid = np.full((len(rows), len(columns)), np.nan)
    inside = (index[0] >= 0) & (index[1] >= 0)
    grid[index[0][inside], index[1][inside]] = frame[value].to_numpy()[inside]
    return grid


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _heat(axis: Any, values: Floats, low: float, high: float, colours: str, words: str | None) -> Any:
    """Draw the matrix in colours, grey for NaN; with a format in `words`, write the values in."""
    from matplotlib import colormaps

    image = axis.imshow(values, cmap=colormaps[colours].with_extremes(bad="0.88"), vmin=low, vmax=high, aspect="auto")
    if words:
        dark = np.abs(values - (low + high) / 2) > 0.32 * (high - low) if low < 0 else values > 0.6 * high
        for (row, column), value in np.ndenumerate(values):
            if np.isfinite(value):
                colour = "white" if dark[row, column] else "0.15"
                word = words.format(value)
                word = word if float(word) else "0"
                axis.text(column, row, word, ha="center", va="center", fontsize=7, color=colour)
    return image


def _ticks(axis: Any, columns: Sequence[Any] | pl.Series, rows: Sequence[Any] | pl.Series, title: str) -> None:
    axis.set_xticks(range(len(columns)), [str(name) for name in columns], rotation=60, ha="right", fontsize=8)
    axis.set_yticks(range(len(rows)), [str(name) for name in rows], fontsize=8)
    axis.set_title(title, fontsize=10)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)


def _save(figure: Any, path: str | Path) -> None:
    from matplotlib import pyplot

    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=140, format="png")
    pyplot.close(figure)
    write_picture(Path(path), drawn.getvalue())
