"""Tables of the page on ratings: accuracy and speed of the models."""

from __future__ import annotations

import statistics

from pages.cells import Result, cores, decimal, made, mean, none_yet, seeds, table, wrapped

NAMES = {
    "global-mean": "Mean of all ratings",
    "rating-bias": "User and item bias",
    "matrix-factorization": "Matrix factorization",
    "arerec": "ARERec, defaults",
    "arerec, per rating": "ARERec, context units per rating",
    "arerec, published": "ARERec as published, training only",
    "arerec, published with its leak": "ARERec as published, **with its leak**",
}
FOLD_NAMES = {
    **NAMES,
    "bayesian-factorization": "Bayesian factorization",
    "bayesian-factorization, explicit": "Bayesian factorization, without implicit feedback",
    "myfm": "myFM, rank 8, with implicit feedback",
}


def ratings(results: dict[str, Result]) -> str:
    """Tables of every model on the same test ratings, first on all rows, then in the published setting."""
    parts = []
    for name, heading in (
        ("ratings_all", "All rows, a random fifth held out"),
        ("ratings_published", "ARERec's own preparation, a random fifth held out"),
    ):
        if name in results:
            parts += [f"**{heading}**", rated(results[name]), made("ratings.py", results[name]["runs"])]
    return "\n\n".join(parts or [none_yet("ratings.py")])


def rated(result: Result) -> str:
    """Table with a row per model, lowest RMSE first: RMSE without and with the refit, other metrics without it."""
    names = {
        "mae": "MAE",
        "log_loss": "log-loss",
        "own_hr@10": "HR@10, rated items",
        "own_ndcg@10": "NDCG@10, rated items",
        "own_hr@10 by class": "HR@10, by level",
    }
    rows = [
        [
            NAMES[model],
            mean(row, "test rmse"),
            mean(row, "refit_test rmse"),
            *(mean(row, f"test {name}") for name in names),
            seeds(int(row["seeds"])),
        ]
        for model, row in sorted(result["summary"].items(), key=lambda pair: pair[1]["test rmse"])
    ]
    return table(["", "RMSE, no refit", "RMSE, refit", *names.values(), ""], rows)


def folds(results: dict[str, Result]) -> str:
    """Table of the RMSE on the five published folds, and the coverage of the intervals."""
    if "rating_folds" not in results:
        return none_yet("rating_folds.py")
    runs = results["rating_folds"]["runs"]
    names = sorted({run["fold"] for run in runs})
    rows = []
    for model in dict.fromkeys(run["model"] for run in runs):
        of_model = {run["fold"]: run for run in runs if run["model"] == model}
        errors = [of_model[fold]["test"]["rmse"] for fold in names]
        covered = [run["coverage"]["80%"] for run in of_model.values() if "coverage" in run]
        rows.append(
            [
                FOLD_NAMES[model],
                *(decimal(error) for error in errors),
                decimal(statistics.mean(errors)),
                f"{min(covered):.1%} to {max(covered):.1%}" if covered else "",
                f"{statistics.mean(run['cpu_seconds'] for run in of_model.values()):.0f}",
            ]
        )
    rows.sort(key=lambda row: row[len(names) + 1])
    heads = ["RMSE", *names, "mean", "in the 80 % interval", "CPU s per fold"]
    return "\n\n".join([table(heads, rows), made("rating_folds.py", runs)])


def rating_speed(results: dict[str, Result]) -> str:
    """Seconds per epoch beside ARERec's program, and the cost of large logs."""
    parts = []
    if "arerec_speed" in results:
        result = results["arerec_speed"]
        own = result["seconds_per_epoch"]
        parts += [
            wrapped(
                f"An epoch in the published setting ({result['ratings']:,} ratings, "
                f"{result['parameters']['per rating'] / 1e6:.0f} million weights) takes {own['per rating']:.1f} s on "
                f"{cores(result['hardware']['threads'])}. ARERec's program took {result['peer_seconds_per_epoch']} s "
                f"on a core of the same kind, {result['times_faster']:.0f} times as long. With shared units "
                f"({result['parameters']['shared'] / 1e6:.1f} million weights) an epoch takes {own['shared']:.1f} s."
            ),
            made("arerec_speed.py", [result]),
        ]
    sizes = [results[name] for name in sorted(results, key=_length_and_name) if name.startswith("rating_size_")]
    if sizes:
        heads = ["simulated ratings", "trained on", "s per epoch", "s per million", "weights", "peak memory"]
        rows = [
            [
                result["what"].split()[2],
                f"{result['ratings']:,}",
                f"{result['seconds_per_epoch']:,.0f}",
                f"{result['seconds_per_million']:.0f}",
                f"{result['parameters'] / 1e6:.0f} million",
                f"{result['peak_gb']:.1f} GB",
            ]
            for result in sizes
        ]
        parts += [table(heads, rows), made("rating_size.py", sizes)]
    return "\n\n".join(parts or [none_yet("arerec_speed.py", "rating_size.py")])


def _length_and_name(name: str) -> tuple[int, str]:
    return len(name), name
