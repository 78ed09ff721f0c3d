"""segue and rivals in one configuration, by turns: seconds, ratios; from results/turns_<data>.json."""

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
    """The turns on each dataset, Games first: the larger one."""
    found = {data: results[f"turns_{data}"]["runs"] for data in DATA if f"turns_{data}" in results}
    return dict(sorted(found.items(), key=lambda item: item[0] != "games"))


def ratios(results: dict[str, Result]) -> str:
    """Against RecTools and against Microsoft's."""
    parts = [part for data, turns in turns_by_data(results).items() for part in of(data, turns, results)]
    return "\n\n".join(parts or [none_yet("peers/turns.py")])


def of(data: str, turns: list[Result], results: dict[str, Result]) -> Iterator[str]:
    """The tables of one dataset."""
    yield f"**{DATA[data]}: segue and RecTools, one configuration**"
    rows = [compared(turns, RECTOOLS, metric) for metric in (EPOCH, LISTS)]
    rows += rivals.until_their_best(rivals.runs_by_data(results).get(data, []))
    yield table(["", "segue", "RecTools", "times as fast", "in each round"], rows)
    yield f"**{DATA[data]}: segue and Microsoft's SASREC, one configuration**"
    rows = [compared(turns, MICROSOFT, metric) for metric in (EPOCH, SAMPLED)]
    yield table(["", "segue", "Microsoft's", "times as fast", "in each round"], rows)
    yield made(f"peers/turns.py --data {data}", turns)


def at_a_glance(results: dict[str, Result]) -> Iterator[str]:
    """One dataset's systems in one configuration, the shortest epoch first: Games, or whichever there is."""
    for data, turns in list(turns_by_data(results).items())[:1]:
        names = sorted({turn["peer"] for turn in turns}, key=lambda name: statistics.median(each(turns, name, EPOCH)))
        rows = [
            [rivals.SYSTEMS[name], *(usual(turns, name, metric) for metric in NAMES), usual_memory(turns, name)]
            for name in names
        ]
        heads = [
            f"{DATA[data]}, one configuration",
            "seconds per epoch",
            "users/s, lists",
            "users/s, sampled evaluation",
            "memory, training",
        ]
        yield table(heads, rows, texts=[0])
        yield made(f"peers/turns.py --data {data}", turns)


def compared(turns: list[Result], rival: str, metric: str) -> list[str]:
    """A row: what is usual with segue, with the rival, and their ratio; and the ratio of each round."""
    own, other = each(turns, OURS, metric), each(turns, rival, metric)
    found = [theirs / mine if metric == EPOCH else mine / theirs for mine, theirs in zip(own, other, strict=True)]
    by_round = ", ".join(number(ratio) for ratio in found)
    figures = [number(statistics.median(values)) for values in (own, other, found)]
    return [NAMES[metric], *figures[:2], f"{figures[2]} ×", by_round]


def usual(turns: list[Result], name: str, metric: str) -> str:
    """The median over the rounds; nothing where it was not measured."""
    values = each(turns, name, metric)
    return "" if None in values else number(statistics.median(values))


def usual_memory(turns: list[Result], name: str) -> str:
    """The median over the rounds, in MB."""
    return f"{statistics.median(each(turns, name, 'peak_memory_training')) / 1e6:,.0f} MB"


def each(turns: Sequence[Result], name: str, metric: str) -> list[float]:
    """A system's figure in each round, in their order."""
    return [turn[metric] for turn in sorted(turns, key=lambda turn: turn["round"]) if turn["peer"] == name]
