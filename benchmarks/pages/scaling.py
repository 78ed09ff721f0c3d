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
USERS, MACHINES, CORES, WIDTH, TARGETS = 10**8, 16, 16, 64, 4096
"""Users, machines, cores of each, width of the vectors and targets of a step of the cluster on paper."""


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


def cluster(results: dict[str, Result]) -> str:
    """Tables for a billion interactions, 100 million users and ten million items on a cluster: work, and bytes."""
    if not {"scaling", "shards", "divided_tables"} <= results.keys():
        return none_yet("scaling.py", "shards.py", "divided_tables.py")
    axes, shards = results["scaling"]["axes"], results["shards"]
    runs = {(run["items"], run["divided"]): run for run in results["divided_tables"]["runs"]}
    whole, divided = runs[ITEMS, False], runs[ITEMS, True]
    speed = max(row["products_gflops"] for row in axes["items"]["points"]) * 1e9
    steps = MANY / TARGETS
    work = {
        "preparing in shards": shards["alone"]["cpu_seconds"] / shards["options"]["rows"] * MANY,
        f"an epoch of SASRec, {steps:,.0f} times {TARGETS:,} targets": divided["cpu_seconds_per_step"] * steps,
        "ranking the targets of 100,000 users, at least": 2 * 10**5 * 2 * ITEMS * WIDTH / speed,
        "lists for all users, at least": USERS * 2 * ITEMS * WIDTH / speed,
    }
    rows = [
        [name, f"{seconds / 3600:,.1f}", duration(seconds / (MACHINES * CORES * 0.8))] for name, seconds in work.items()
    ]
    heads = ["work", "hours of one core", f"on {MACHINES} machines with {CORES} cores"]
    return "\n\n".join([table(heads, rows, texts=(0,)), bytes_of_cluster(axes, shards, runs, whole, divided)])


def bytes_of_cluster(
    axes: dict[str, Result],
    shards: Result,
    runs: dict[tuple[int, bool], Result],
    whole: Result,
    divided: Result,
) -> str:
    """Table of the bytes on the disk, in the memory of a process of a training, and on the network."""
    processes = MACHINES * CORES
    per_interaction = axes["interactions"]["points"][-1]["bytes_per_interaction"]
    smaller = min(items for items, is_divided in runs if not is_divided)
    per_id = (whole["before_mb"] - runs[smaller, False]["before_mb"]) * 1e6 / (ITEMS - smaller)
    of_table = (whole["peak_mb"] - whole["before_mb"]) * 1e6
    rest = (divided["peak_mb"] - divided["before_mb"]) * 1e6 - of_table / divided["processes"]
    sent = divided["sent_kb"] * divided["processes"] + divided["dense_kb"]  # a process has all targets of a step
    rows = [
        ["disk while it is prepared, about 60 per interaction", size(60 * MANY)],
        ["the Dataset", size(per_interaction * MANY + 16 * USERS)],
        ["a worker that prepares, beyond Python", size(shards["added_by_a_worker_mb"] * 1e6 + per_id * ITEMS)],
        ["the item table in training, with all copies, in one process", size(of_table)],
        [f"the same, divided over {processes} processes", size(of_table / processes)],
        ["batches and Python in each process", size(rest + runs[smaller, False]["before_mb"] * 1e6)],
        ["ids of all items and users in each process", size(per_id * (ITEMS + USERS))],
        ["the plan of an epoch in each process, six int64 per window", size(48 * USERS)],
        [f"sent by a process in a step of {TARGETS:,} targets", size(sent * 1e3)],
    ]
    return table(["bytes", "size"], rows, texts=(0,))


def size(count: float) -> str:
    """A number of bytes with two digits in a readable unit."""
    for unit, bytes_of_unit in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= bytes_of_unit:
            return f"{float(f'{count / bytes_of_unit:.2g}'):,g} {unit}"
    return f"{count / 1e3:.2g} kB"


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
