"""Content in the item vectors: known items, and items that training never sees."""

from __future__ import annotations

import statistics

from pages.cells import Result, made, mean, none_yet, seeds, table

_NAMES = {
    "sasrec+features": "SASRec, `features`",
    "sasrec": "SASRec",
    "category-popularity": "popularity in the category",
    "content-neighbours": "content neighbours",
}


def warm(results: dict[str, Result]) -> str:
    """Table of all items, leave-last-out."""
    heads = ["warm: leave-last-out", "NDCG@10", "HR@10", "HR@20", "coverage@10", ""]
    return _table(results, "warm", heads, ["ndcg@10", "hr@10", "hr@20", "coverage@10"])


def cold(results: dict[str, Result]) -> str:
    """Table of items that training never sees, with the other targets beside them."""
    heads = ["cold: a tenth of the items never trained", "HR@10 among all items", "HR@10 among cold items"]
    return _table(results, "cold", [*heads, "other targets: HR@10", ""], ["cold_hr@10", "cold_own_hr@10"])


def _of_known_items(runs: list[Result]) -> str:
    """HR@10 of the targets that training has seen, mean over the runs."""
    found = []
    for run in runs:
        parts = [part for part in run["by_popularity"] if not part["popularity"].startswith("cold")]
        hits = sum(part["targets"] * part["hr@10"] for part in parts)
        found.append(hits / sum(part["targets"] for part in parts))
    row = {"hr@10": statistics.mean(found), "hr@10 sd": statistics.stdev(found) if len(found) > 1 else 0.0}
    return mean(row, "hr@10")


def _table(results: dict[str, Result], part: str, heads: list[str], metrics: list[str]) -> str:
    found = results.get("content", {})
    runs = [run for run in found.get("runs", []) if run["part"] == part]
    if not runs:
        return none_yet(f"content.py {part}")
    rows = []
    for model, name in _NAMES.items():
        row = found["summary"].get(f"{part}: {model}")
        if row is not None:
            counts = seeds(int(row["seeds"])) if model.startswith("sasrec") else ""
            cells = [mean(row, f"test {metric}") for metric in metrics]
            cells += [_of_known_items([run for run in runs if run["model"] == model])] if part == "cold" else []
            rows.append([name, *cells, counts])
    rows.sort(key=lambda cells: cells[1], reverse=True)
    return "\n\n".join([table(heads, rows), made(f"content.py {part}", runs)])
