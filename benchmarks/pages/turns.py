"""Speed of segue and other libraries in the same configuration, measured by turns: results/turns_<data>.json.

Medians are over the rounds of all days.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from pages import rivals
from pages.cells import DATA, Result, made, none_yet, number, table

OURS = "segue-notebook"
RECTOOLS, MICROSOFT = "rectools-bce", "recommenders-sasrec"
EPOCH, LISTS, SAMPLED = "seconds_per_epoch", "recommended_users_per_second", "sampled_users_per_second"
NAMES = {
    EPOCH: "seconds per epoch",
    LISTS: "users/s, lists of ten",
    SAMPLED: "users/s, evaluated among 100 sampled items",
}


def turns_by_data(results: dict[str, Result]) -> dict[str, list[Result]]:
    """Turns on each dataset; Games, the larger one, comes first."""
    found = {data: results[f"turns_{data}"]["runs"] for data in DATA if f"turns_{data}" in results}
    return dict(sorted(found.items(), key=lambda item: item[0] != "games"))


def ratios(results: dict[str, Result]) -> str:
    """Tables of segue beside RecTools and beside Microsoft's library."""
    parts = [part for data, turns in turns_by_data(results).items() for part in of(data, turns, results)]
    return "\n\n".join(parts or [none_yet("peers/turns.py")])


def of(data: str, turns: list[Result], results: dict[str, Result]) -> Iterator[str]:
    """Headings and tables of one dataset."""
    yield f"**{DATA[data]}: segue and RecTools, same configuration**"
    rows = [compared(turns, RECTOOLS, metric) for metric in (EPOCH, LISTS)]
    rows += rivals.until_their_best(rivals.runs_by_data(results).get(data, []))
    yield table(["", "segue", "RecTools", "speed-up", "speed-up per round, by day"], rows)
    yield f"**{DATA[data]}: segue and Microsoft's SASREC, same configuration**"
    rows = [compared(turns, MICROSOFT, metric) for metric in (EPOCH, SAMPLED)]
    yield table(["", "segue", "Microsoft's", "speed-up", "speed-up per round, by day"], rows)
    yield made(f"peers/turns.py --data {data}", turns)


def at_a_glance(results: dict[str, Result]) -> Iterator[str]:
    """Table of the systems in the same configuration on one dataset (Games if measured), shortest epoch first."""
    for data, turns in list(turns_by_data(results).items())[:1]:
        names = sorted({turn["peer"] for turn in turns}, key=lambda name: statistics.median(each(turns, name, EPOCH)))
        rows = [
            [rivals.SYSTEMS[name], *(median_of(turns, name, metric) for metric in NAMES), median_memory(turns, name)]
            for name in names
        ]
        heads = [
            f"{DATA[data]}, same configuration",
            "seconds per epoch",
            "users/s, lists",
            "users/s, sampled evaluation",
            "training memory",
        ]
        yield table(heads, rows, texts=[0])
        yield made(f"peers/turns.py --data {data}", turns)


def compared(turns: list[Result], other: str, metric: str) -> list[str]:
    """Row of a metric: medians of segue and of the other library, median speed-up, and the speed-up of each round."""
    ours, theirs = each(turns, OURS, metric), each(turns, other, metric)
    pairs = zip(ours, theirs, strict=True)
    ratios = [their / our if metric == EPOCH else our / their for our, their in pairs]
    days: dict[str, list[str]] = {}
    for day, ratio in zip(days_of(turns), ratios, strict=True):
        days.setdefault(day, []).append(number(ratio))
    figures = [number(statistics.median(values)) for values in (ours, theirs, ratios)]
    return [NAMES[metric], *figures[:2], f"{figures[2]} ×", "; ".join(", ".join(rounds) for rounds in days.values())]


def median_of(turns: list[Result], name: str, metric: str) -> str:
    """Median over the rounds; empty if it was not measured."""
    values = each(turns, name, metric)
    return "" if None in values else number(statistics.median(values))


def median_memory(turns: list[Result], name: str) -> str:
    """Median memory in training over the rounds, in MB."""
    return f"{statistics.median(each(turns, name, 'peak_memory_training')) / 1e6:,.0f} MB"


def in_order(turns: Sequence[Result], name: str) -> list[Result]:
    """Turns of a system by day and round."""
    return sorted((turn for turn in turns if turn["peer"] == name), key=lambda turn: (turn["date"], turn["round"]))


def each(turns: Sequence[Result], name: str, metric: str) -> list[float]:
    """Figures of a system by day and round."""
    return [turn[metric] for turn in in_order(turns, name)]


def days_of(turns: Sequence[Result]) -> list[str]:
    """Day of each round, in order."""
    return [turn["date"] for turn in in_order(turns, OURS)]
