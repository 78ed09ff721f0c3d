"""Tables of the page on scaling: measurements on each axis, and an extrapolation to a much larger log."""

from __future__ import annotations

from collections.abc import Sequence

from pages.cells import Result, cores, made, none_yet, table, wrapped

AXES = {
    "length": "items per history",
    "width": "width of the vectors",
    "items": "items in the catalogue",
    "interactions": "interactions in the log",
}
LOSSES = {"sampled-softmax": "shared negatives", "softmax": "full softmax"}
MANY, ITEMS, PER_USER = 10**9, 10**7, 50


def measured(results: dict[str, Result]) -> str:
    """Picture of the scaling curves and a table for each axis."""
    if "scaling" not in results:
        return none_yet("scaling.py")
    result = results["scaling"]
    base = result["base"]
    parts = [
        "![Tokens per second and memory against each axis](images/scaling.png)",
        wrapped(
            f"Unless the table says otherwise: histories of {base['length']} items, width {base['width']}, "
            f"{base['items']:,} items, {result['config']['blocks']} blocks, {result['config']['negatives']} shared "
            f"negatives, about {base['targets']:,} tokens per step."
        ),
    ]
    parts += [axis_table(axis, result["axes"][axis]["points"]) for axis in AXES if axis in result["axes"]]
    return "\n\n".join([*parts, made("scaling.py", list(result["axes"].values()))])


def axis_table(axis: str, points: Sequence[Result]) -> str:
    """Table with a row per point: speed, memory, and the figures that only this axis has."""
    columns: dict[str, tuple[str, str]] = {
        "prepare_seconds": ("seconds to prepare", "{:,.1f}"),
        "prepare_added_mb": ("preparing adds, MB", "{:,.0f}"),
        "bytes_per_interaction": ("bytes per interaction", "{:.1f}"),
        "tokens_per_second": ("tokens per second", "{:,.0f}"),
        "share_of_products": ("share of matrix product speed", "{:.0%}"),
        "added_mb": ("training adds, MB", "{:,.0f}"),
        "weights_gradients_moments_mb": ("weights, gradients, moments, MB", "{:,.0f}"),
    }
    shown = {key: of for key, of in columns.items() if any(row.get(key) is not None for row in points)}
    several = len({row["loss"] for row in points}) > 1
    heads = [AXES[axis], *(["loss"] if several else []), *(head for head, _ in shown.values())]
    rows = [
        [
            f"{row[axis]:,}",
            *([LOSSES[row["loss"]]] if several else []),
            *(form.format(row[key]) if row.get(key) is not None else "" for key, (_, form) in shown.items()),
        ]
        for row in points
    ]
    return table(heads, rows, texts=(0, 1) if several else (0,))


def on_paper(results: dict[str, Result]) -> str:
    """Table for a billion interactions and ten million items, extrapolated from the measured points."""
    axes = results["scaling"]["axes"] if "scaling" in results else {}
    if not {"width", "items", "interactions"} <= axes.keys():
        return none_yet("scaling.py")
    users, largest = MANY // PER_USER, axes["interactions"]["points"][-1]
    speed = max(row["products_gflops"] for row in axes["items"]["points"]) * 1e9
    rows = [
        ["the log, in memory or on disk", *2 * [f"{largest['bytes_per_interaction'] * MANY / 1e9:.0f} GB"]],
        ["preparing it", *2 * [duration(largest["prepare_seconds"] * MANY / largest["interactions"])]],
        ["the item table", *(f"{ITEMS * width * 4 / 1e9:.1f} GB" for width in (64, 128))],
        ["with its gradient and Adam's moments", *(f"{4 * ITEMS * width * 4 / 1e9:.1f} GB" for width in (64, 128))],
        [
            "also with the mean of the latest epochs and the best epoch",
            *(f"{6 * ITEMS * width * 4 / 1e9:.1f} GB" for width in (64, 128)),
        ],
    ]
    for loss, name in LOSSES.items():
        seconds = [seconds_at(axes, loss, width) for width in (64, 128)]
        steps = MANY / axes["items"]["points"][0]["targets_per_step"]
        rows.append([f"a step, {name}", *map(duration, seconds)])
        rows.append([f"an epoch of {steps:,.0f} steps, {name}", *(duration(steps * one) for one in seconds)])
    for n, label in ((10_000, "10,000 users"), (users, f"all {users // 10**6} million users")):
        cells = [duration(2 * n * 2 * ITEMS * width / speed) for width in (64, 128)]
        rows.append([f"ranking the targets of {label}, at least", *cells])
    heads = ["10⁹ interactions, 10⁷ items, " + cores(axes["items"]["hardware"]["threads"]), "width 64", "width 128"]
    return table(heads, rows, texts=(0,))


def seconds_at(axes: dict[str, Result], loss: str, width: int) -> float:
    """Seconds of a step with `ITEMS` items, on a straight line through the two largest catalogues.

    The part that grows with the catalogue reads every item vector, so it also grows with the width. The rest of the
    step follows the axis of widths.
    """
    points = [row for row in axes["items"]["points"] if row["loss"] == loss]
    (x1, y1), (x2, y2) = ((row["items"], row["seconds_per_step"]) for row in points[-2:])
    by_width = {row["width"]: row["seconds_per_step"] for row in axes["width"]["points"]}
    growing: float = (y2 - y1) / (x2 - x1) * (ITEMS - x2) + y2 - points[0]["seconds_per_step"]
    rest: float = points[0]["seconds_per_step"] + by_width[width] - by_width[64]
    return growing * width / 64 + rest


def duration(seconds: float) -> str:
    """Duration with two digits in a readable unit."""
    for unit, size in (("years", 365 * 86_400), ("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 1.5 * size:
            return f"{float(f'{seconds / size:.2g}'):,g} {unit}"
    return f"{seconds:.2g} s"
