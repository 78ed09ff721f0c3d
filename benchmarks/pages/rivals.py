"""Other libraries beside segue: accuracy, speed, training curves and settings, from results/peers_<data>.json."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from pages.cells import DATA, Result, decimal, made, none_yet, number, table, wrapped

sys.path.insert(0, str(Path(__file__).parent.parent / "peers"))
from judge import NDCG, reached, tested

SYSTEMS = {
    "segue": "**segue**, SASRec()",
    "segue-notebook": "**segue**, notebook's setting",
    "rectools-bce": "RecTools, notebook's setting",
    "rectools-softmax": "RecTools, full softmax",
    "rectools-ligr": "RecTools, eSASRec",
    "replay-sasrec": "RePlay, full softmax",
    "recommenders-sasrec": "Microsoft's SASREC",
    "recommenders-ssept": "Microsoft's SSEPT",
    "recbole-sasrec": "RecBole, defaults",
}
PICTURE = "![Validation NDCG@10 of each system against its seconds of training](images/peers-curves.png)"
OWN_SETTINGS = (
    "width",
    "max_length",
    "blocks",
    "heads",
    "dropout",
    "loss",
    "negatives",
    "similarity",
    "temperature",
    "norm",
    "batch_size",
    "learning_rate",
)
"""Settings of segue to show; the result has all of them."""


def runs_by_data(results: dict[str, Result]) -> dict[str, list[Result]]:
    """Runs on each dataset, highest test NDCG@10 first."""
    found = {data: results[f"peers_{data}"]["runs"] for data in DATA if f"peers_{data}" in results}
    return {data: sorted(runs, key=lambda run: -tested(run)[NDCG]) for data, runs in found.items()}


def side_by_side(results: dict[str, Result]) -> str:
    """Two tables per dataset: accuracy, and speed and memory."""
    parts = [part for data, runs in runs_by_data(results).items() for part in of(data, runs)]
    return "\n\n".join(parts or [none_yet("peers/run.py")])


def of(data: str, runs: list[Result]) -> Iterator[str]:
    """Headings and tables of one dataset."""
    yield f"**{DATA[data]}: accuracy, with the refit**"
    rows = [
        [named(run, runs), *(estimate(run, metric) for metric in ("ndcg@10", "hr@10")), epochs(run)] for run in runs
    ]
    yield table(["", "NDCG@10, refit [95 %]", "HR@10, refit [95 %]", "epochs"], rows)
    yield f"**{DATA[data]}: speed and memory**"
    yield speeds(runs)
    yield made(f"peers/run.py --data {data}", runs)


def speeds(runs: list[Result]) -> str:
    """Table with a row per run, shortest epoch first."""
    heads = ["", "s per epoch", "s to 95 %", "users/s, lists", "users/s, sampled", "MB, training", "MB, total"]
    rows = [
        [
            named(run, runs),
            number(run["seconds_per_epoch"]),
            optional(run.get("seconds_to_95_percent")),
            number(run["recommended_users_per_second"]),
            optional(run.get("sampled_users_per_second")),
            f"{run['peak_memory_training'] / 1e6:,.0f}",
            f"{run['peak_memory'] / 1e6:,.0f}",
        ]
        for run in sorted(runs, key=lambda run: run["seconds_per_epoch"])
    ]
    return table(heads, rows, texts=[0])


def best_others(results: dict[str, Result]) -> dict[str, tuple[str, str, str]]:
    """Name, NDCG@10 and HR@10 of the best other library on each dataset, with the refit."""
    found = {}
    for data, runs in runs_by_data(results).items():
        for run in [run for run in runs if not run["peer"].startswith("segue")][:1]:
            figures = tested(run)
            found[data] = (SYSTEMS[run["peer"]], decimal(figures["ndcg@10"]), decimal(figures["hr@10"]))
    return found


# ---- until RecTools' best --------------------------------------------------------------------------------------------


def until_their_best(runs: list[Result]) -> list[list[str]]:
    """Rows of seconds until segue reaches RecTools' best validation NDCG@10.

    The first row is of the same configuration, the second of segue's defaults. A row is left out if the two systems
    ran with different numbers of threads.
    """
    other = only(runs, "rectools-bce")
    if not other or "curve" not in other:
        return []
    best = max(other["curve"], key=lambda row: row[NDCG])
    rows = []
    for name, suffix in (("segue-notebook", ""), ("segue", ", by SASRec()")):
        run = only(runs, name)
        if run and "curve" in run and run["threads"] == other["threads"]:
            rows.append(until(f"seconds to RecTools' best NDCG@10{suffix}", run["curve"], best))
    return rows


def until(label: str, rows: list[dict[str, float]], best: dict[str, float]) -> list[str]:
    """Row of the seconds until a curve reaches the other system's best value."""
    seconds, theirs = reached(rows, best[NDCG]), best["seconds"]
    if seconds is None:
        return [label, "never", number(theirs), "", ""]
    return [label, number(seconds), number(theirs), f"{number(theirs / seconds)} ×", ""]


# ---- settings --------------------------------------------------------------------------------------------------------


def settings(results: dict[str, Result]) -> str:
    """List of settings and versions of each system; one entry if the settings are the same on all datasets."""
    entries: dict[tuple[str, str, str], list[str]] = {}
    for data, runs in runs_by_data(results).items():
        for run in runs:
            given = run["settings"]
            if run["peer"].startswith("segue"):
                given = {name: given[name] for name in OWN_SETTINGS if name in given}
            options = ", ".join(f"{name} {value}" for name, value in given.items())
            used = [f"{name} {version}" for name, version in run["peer_versions"].items() if name != "numpy"]
            datasets = entries.setdefault((run["peer"], options, ", ".join(used)), [])
            datasets += [DATA[data]] if DATA[data] not in datasets else []
    lines = [
        wrapped(f"- {SYSTEMS[peer]}, on {' and '.join(datasets)}: {options}. Versions: {versions}.", indent="  ")
        for (peer, options, versions), datasets in sorted(
            entries.items(), key=lambda entry: list(SYSTEMS).index(entry[0][0])
        )
    ]
    return "\n".join(lines) or none_yet("peers/run.py")


def pictures(results: dict[str, Result]) -> str:
    """Picture made by `curves.py`, if there are curves."""
    runs = [run for runs in runs_by_data(results).values() for run in runs if "curve" in run]
    return f"{PICTURE}\n\n{made('curves.py', runs)}" if runs else none_yet("peers/run.py")


# ---- cells -----------------------------------------------------------------------------------------------------------


def only(runs: list[Result], peer: str) -> Result | None:
    """Run that represents a system: with a chosen epoch if there is one, and the first seed."""
    found = [run for run in runs if run["peer"] == peer]
    return min(
        found,
        key=lambda run: (run["threads"], run["protocol"] == "fixed", "refit_test" not in run, run["seed"]),
        default=None,
    )


def named(run: Result, runs: list[Result]) -> str:
    """Name of the system, with threads and seed if they differ between runs."""
    same = [other for other in runs if other["peer"] == run["peer"]]
    parts = [SYSTEMS[run["peer"]]]
    if len({other["threads"] for other in runs}) > 1:
        parts.append(f"{run['threads']} threads")
    if len({other["seed"] for other in same}) > 1:
        parts.append(f"seed {run['seed']}")
    return ", ".join(parts)


def epochs(run: Result) -> str:
    """Number of epochs: fixed, or chosen of so many."""
    if run["protocol"] == "fixed":
        return f"{run['epochs']}, fixed"
    again = "" if "refit_test" in run else ", no refit"
    return f"{run['epochs']} of {run['curve'][-1]['epoch']:.0f}{again}"


def estimate(run: Result, metric: str) -> str:
    """Test metric with its interval."""
    figures = tested(run)
    low, high = figures["intervals"][metric]
    return f"{decimal(figures[metric])} [{decimal(low)}, {decimal(high)}]"


def optional(value: float | None) -> str:
    """Number, or nothing if it was not measured."""
    return "" if value is None else number(value)
