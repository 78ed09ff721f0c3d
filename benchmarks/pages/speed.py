"""Speed of segue alone: the notebook's setting, the parts of a training step, hardware limits, and reading data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from pages.cells import DATA, Result, cores, decimal, made, none_yet, number, table, wrapped

SETTINGS = {"notebook": "notebook's setting", "defaults": "SASRec()"}


def step(results: dict[str, Result]) -> str:
    """Table of the parts of a training step, largest first, with a column per setting."""
    profiles = {name: results[f"step_profile_{name}"] for name in SETTINGS if f"step_profile_{name}" in results}
    if not profiles:
        return none_yet("step_profile.py")
    shares = [one["shares"] for one in profiles.values()]
    largest = {part: max(one.get(part, 0.0) for one in shares) for one in shares for part in one}
    rows = [
        [part, *(f"{100 * one[part]:.0f} %" if part in one else "" for one in shares)]
        for part in sorted(largest, key=lambda part: -largest[part])
    ]
    facts: list[tuple[str, Callable[[Result], str]]] = [
        ("milliseconds of CPU per step", lambda one: number(1e3 * one["seconds_per_step"])),
        ("steps per epoch", lambda one: f"{one['steps_per_epoch']:,}"),
        ("gigaflop of matrix products per step", lambda one: f"{one['gigaflop_per_step']:.2f}"),
        ("share of the machine's fastest matrix product", lambda one: f"{100 * one['share_of_peak']:.0f} %"),
        ("inputs that are padding", lambda one: f"{100 * one['padding']:.1f} %"),
    ]
    rows += [[name, *(of(one) for one in profiles.values())] for name, of in facts]
    parts = [table(["Amazon Games", *(SETTINGS[name] for name in profiles)], rows, texts=[0])]
    return "\n\n".join([*parts, made("step_profile.py", list(profiles.values()))])


def limits(results: dict[str, Result]) -> str:
    """Time of top-k beside the bare matrix product, and memory of a full softmax beside that of the weights."""
    if "limits" not in results:
        return none_yet("limits.py")
    result = results["limits"]
    heads = ["top 20 of all items, seen items left out", "CPU seconds", "product and top-k alone", "ratio"]
    rows = [
        [
            f"{one['users']:,} users × {one['items']:,} items",
            f"{one['top_k_seconds']:.2f}",
            f"{one['bare_seconds']:.2f}",
            f"{one['ratio']:.2f}",
        ]
        for one in result["top_k"].values()
    ]
    parts = [table(heads, rows, texts=[0])]
    one = result["memory"]
    heads = ["full softmax, one step", "peak memory", "weights, gradients, moments", "ratio"]
    row = [
        f"{one['items']:,} items, width {one['width']}, {one['targets_per_step']:,} targets",
        f"{one['peak_mb']:,} MiB",
        f"{one['parameters_gradients_moments_mb']:,} MiB",
        f"{one['ratio']:.2f}",
    ]
    return "\n\n".join([*parts, table(heads, [row], texts=[0]), made("limits.py", [result])])


def alone(results: dict[str, Result]) -> str:
    """Time of the defaults to their best epoch, the notebook's setting, and time to read, prepare and simulate data."""
    parts = [*to_best(results)]
    notebooks = [results[name] for name in sorted(results) if name.startswith("notebook_")]
    if notebooks:
        parts += notebook(notebooks)
    for name, of in (("prepare", preparation), ("session_file", reading_sessions), ("simulate", simulation)):
        if name in results:
            parts += of(results[name])
    return "\n\n".join(parts or [none_yet("notebook.py")])


def to_best(results: dict[str, Result]) -> Iterator[str]:
    """Table with a row per dataset and seed: best epoch, and seconds until it and until early stopping."""
    heads = ["", "best epoch", "its NDCG@10 on validation", "seconds until best", "seconds until the stop"]
    rows, runs = [], []
    for data, heading in DATA.items():
        for run in results.get(f"full_ranking_{data}", {}).get("runs", []):
            if run["model"] != "sasrec":
                continue
            notes = run["training"]
            # All epochs take equally long, so the best of n ends after its share of the seconds.
            until = notes["seconds"] * notes["best_epoch"] / notes["epochs"]
            rows.append(
                [
                    f"{heading}, seed {run['seed']}, {cores(run['hardware']['threads'])}",
                    f"{notes['best_epoch']} of {notes['epochs']}",
                    decimal(notes["validation"]["ndcg@10"]),
                    number(until),
                    number(notes["seconds"]),
                ]
            )
            runs.append(run)
    if rows:
        yield "**Speed: `SASRec()` until early stopping, with validation**"
        yield table(heads, rows, texts=[0])
        yield made("full_ranking.py", runs)


def notebook(notebooks: Sequence[Result]) -> Iterator[str]:
    """Table of segue on each number of threads beside Microsoft's library."""
    peer = notebooks[0]["peer"]
    heads = ["", *(f"segue, {cores(one['hardware']['threads'])}" for one in notebooks), "recommenders 1.2.1, one core"]
    users, items = notebooks[0]["full_evaluation_shape"]
    lines: list[tuple[str, list[str], str]] = [
        ("seconds per epoch", [f"{one['seconds_per_epoch']:.1f}" for one in notebooks], str(peer["seconds_per_epoch"])),
        (
            "NDCG@10 after 10 epochs, no refit",
            [decimal(one["sampled"]["ndcg@10"]) for one in notebooks],
            decimal(peer["ndcg@10"]),
        ),
        (
            "HR@10 after 10 epochs, no refit",
            [decimal(one["sampled"]["hr@10"]) for one in notebooks],
            decimal(peer["hr@10"]),
        ),
        (
            "users evaluated per second, 100 items each",
            [f"{one['sampled_users_per_second']:,}" for one in notebooks],
            str(peer["evaluated_users_per_second"]),
        ),
        (
            f"seconds to rank {users:,} users × {items:,} items",
            [f"{one['full_evaluation_seconds']['ranks']:.1f}" for one in notebooks],
            "",
        ),
    ]
    yield "**Speed: the setting of Microsoft's SASRec notebook, on Amazon Games**"
    yield table(heads, [[what, *ours, theirs] for what, ours, theirs in lines])
    yield made("notebook.py", notebooks)
    yield "Microsoft's `recommenders` (TensorFlow 2.15) was measured earlier, on the same kind of machine."


def preparation(result: Result) -> Iterator[str]:
    """Time and memory of `segue prepare`, in one line."""
    options = result["options"]
    yield "**Speed: `segue prepare`**"
    yield (
        f"{options['rows']:,} ratings in a CSV file, {options['k_core']}-core: {result['seconds']:.0f} s, "
        f"{result['peak_mb']:,} MB of peak memory."
    )
    yield made("prepare.py", [result])


def reading_sessions(result: Result) -> Iterator[str]:
    """Time to read a session file, in one sentence."""
    sizes = result["sizes"]
    yield "**Speed: a session file**"
    yield wrapped(
        f"Reading, preparing, opening and splitting PARSRec's `synthetic.txt` ({sizes['sessions']:,} sessions, "
        f"{sizes['interactions']:,} interactions) takes {result['seconds']:.2f} s. PARSRec's own script needs "
        f"{result['reference']['cpu_seconds']} s of CPU time to convert the file into a binary one."
    )
    yield made("session_file.py", [result])


def simulation(result: Result) -> Iterator[str]:
    """Time and memory of `segue simulate`, in one line."""
    options, written = result["options"], result["written"]
    yield "**Speed: `segue simulate`**"
    yield (
        f"{written['sessions']:,} sessions of {options['users']:,} users, {options['items']:,} items, to Parquet: "
        f"{result['seconds']:.0f} s, {result['peak_mb']:,} MB of peak memory."
    )
    yield made("simulate.py", [result])
