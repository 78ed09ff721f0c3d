"""Memory and traffic of tables that are divided over processes."""

from __future__ import annotations

from pages.cells import Result, made, none_yet, table, wrapped


def divided(results: dict[str, Result]) -> str:
    """Table with a row for each number of items and processes."""
    runs = results.get("divided_tables", {}).get("runs", [])
    if not runs:
        return none_yet("divided_tables.py")
    alone = {one["items"]: one for one in runs if one["processes"] == 1}
    heads = [
        "items",
        "processes",
        "memory of the largest, MB",
        "of one process",
        "sent, kB",
        "rows read, kB",
        "all, kB",
    ]
    rows = []
    for one in sorted(runs, key=lambda one: (one["items"], one["processes"], not one["divided"])):
        whole = alone.get(one["items"])
        divided, several = one["divided"], one["processes"] > 1
        share = f"{100 * one['peak_mb'] / whole['peak_mb']:.0f} %" if whole and several else ""
        ways = "" if not several else ", divided" if divided else ", whole tables"
        rows.append(
            [
                f"{one['items']:,}",
                f"{one['processes']}{ways}",
                f"{one['peak_mb']:,.0f}",
                share,
                f"{one['sent_kb']:.0f}" if divided else "",
                f"{one['rows_kb']:.0f}" if divided else "",
                f"{one['network_kb']:.0f}" if several else "",
            ]
        )
    text = (
        "SASRec, width 64, 512 shared negatives, 4,096 targets per step, a whole `fit` of one epoch with the options "
        "at their defaults. Memory is the highest resident memory. A process sends so much for divided tables in a "
        "step, of which the rows read from others and their gradients need so much at least. The last column has all "
        "bytes on the network, those of the other weights and all headers included."
    )
    return "\n\n".join([wrapped(text), table(heads, rows, texts=[1]), made("divided_tables.py", runs)])
