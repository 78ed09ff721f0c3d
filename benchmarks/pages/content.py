"""Content in the item vectors: known items, and items that training never sees."""

from __future__ import annotations

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
    """Table of items that training never sees."""
    heads = ["cold: a tenth of the items never trained", "HR@10 among all items", "HR@10 among cold items", ""]
    return _table(results, "cold", heads, ["cold_hr@10", "cold_own_hr@10"])


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
            rows.append([name, *(mean(row, f"test {metric}") for metric in metrics), counts])
    rows.sort(key=lambda cells: cells[1], reverse=True)
    return "\n\n".join([table(heads, rows), made(f"content.py {part}", runs)])
