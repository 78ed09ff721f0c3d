"""The ablation: SASRec's defaults with one option changed at a time, from results/ablation_<data>.json.

Runs of the defaults in results/full_ranking_<data>.json have the same protocol, and count here too. Runs of a cut in
time have a table of their own, from results/ablation_<data>_time-cut.json.
"""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import dataclass
from typing import Any

from pages.cells import DATA, Result, decimal, made, none_yet, table

SHAZEER, HSTU = "Shazeer 2020", "HSTU, Zhai et al. 2024"
SASREC = "SASRec, Kang & McAuley 2018"
SOURCES: dict[object, str] = {  # paper that introduced an option, or a value of an option
    ("loss", "bce"): SASREC,
    ("loss", "gbce"): "gSASRec, Petrov & Macdonald 2023",
    ("loss", "softmax"): "Klenitskiy & Vasilev 2023",
    ("loss", "sampled-softmax"): "Klenitskiy & Vasilev 2023",
    ("windows", "newest"): SASREC,
    ("similarity", "dot"): SASREC,
    ("norm", "paper"): SASREC,
    ("norm", "ligr"): "LiGR, Borisyuk et al. 2025; eSASRec, Tikhonovich et al. 2025",
    ("feed_forward", "swiglu"): SHAZEER,
    ("positions", "relative"): HSTU,
    ("positions", "both"): HSTU,
    "time_bias": HSTU,
    "frequency": "BSARec, Shin et al. 2024",
    "transitions": "Klakow 1998; Ney et al. 1995",
    "averaging": "Polyak & Juditsky 1992; Tarvainen & Valpola 2017",
    "logq": "Bengio & Senécal 2008; Yi et al. 2019",
    "in_batch": "Yang et al. 2020",
    "learn_temperature": "CLIP, Radford et al. 2021",
}
PARTS = ("validation", "test")
METRIC = "ndcg@10"
DEFAULTS = "defaults"

Variants = dict[str, list[Result]]
"""The runs of each variant on one dataset."""


@dataclass(frozen=True)
class Ablation:
    """Runs on one dataset.

    Attributes
    ----------
    variants
        Runs of each variant; those of the defaults come from full_ranking.py if ablation.py has none.
    defaults
        All runs of the defaults.
    """

    variants: Variants
    defaults: list[Result]

    @classmethod
    def of(cls, runs: list[Result], elsewhere: list[Result]) -> Ablation:
        """Runs of ablation.py, and runs of the defaults by another script with the same protocol."""
        variants = by_variant(runs)
        defaults = [*variants.get(DEFAULTS, []), *elsewhere]
        return cls({DEFAULTS: elsewhere} | variants if elsewhere else variants, defaults)


def ablation(results: dict[str, Result]) -> str:
    """Table of the ablation with the last items of all users held out."""
    return tables(results, "ablation_{}", "full_ranking_{}", "ablation.py")


def time_cut(results: dict[str, Result]) -> str:
    """Table of the ablation with all users cut at the same moments."""
    return tables(results, "ablation_{}_time-cut", None, "ablation.py --split time-cut")


def tables(results: dict[str, Result], name: str, defaults: str | None, command: str) -> str:
    """Table of the results `name`, and of the defaults in the results `defaults`, with the data for {}; lines below."""
    runs = {data: results[name.format(data)]["runs"] for data in DATA if name.format(data) in results}
    elsewhere = {data: results.get(defaults.format(data), {}) if defaults else {} for data in runs}
    found = {data: Ablation.of(those, defaults_elsewhere(elsewhere[data])) for data, those in runs.items()}
    lines = [made(f"{command} --data {data}", those) for data, those in runs.items()]
    return "\n\n".join([by_gain(found), *lines]) if found else none_yet(command)


def by_gain(found: dict[str, Ablation]) -> str:
    """Table with a row per variant, best validation first: NDCG@10 on each dataset and its gain over the defaults."""
    names = dict.fromkeys(name for one in found.values() for name in one.variants)
    rows = []
    for name in sorted(names, key=lambda name: gain(name, list(found.values())), reverse=True):
        runs_by_data = [one.variants.get(name, []) for one in found.values()]
        cells = [figure(one, name, part) for one in found.values() for part in PARTS]
        options = {} if name == DEFAULTS else next(runs for runs in runs_by_data if runs)[0]["changed"]
        rows.append([changed(options), *cells, " / ".join(str(len(runs)) for runs in runs_by_data), source(options)])
    heads = [f"{DATA[data]}: {part}" for data in found for part in PARTS]
    return table(["", *heads, "seeds", "source"], rows)


def by_variant(runs: list[Result]) -> Variants:
    """Runs of each variant, in their given order."""
    found: Variants = {}
    for run in runs:
        found.setdefault(run["model"], []).append(run)
    return found


def defaults_elsewhere(result: Result) -> list[Result]:
    """Runs of the defaults in a result of full_ranking.py, in the form of the ablation's runs."""
    return [
        {**run, "validation": run["training"]["validation"], "epochs_at_most": run["options"]["epochs"]}
        for run in result.get("runs", [])
        if run["model"] == "sasrec"
    ]


def differences(runs: Ablation, name: str, part: str) -> list[float]:
    """Variant minus defaults, for each seed that both ran with the same maximum of epochs."""
    plain = {(run["seed"], run["epochs_at_most"]): run[part][METRIC] for run in runs.defaults}
    keys = [(run, (run["seed"], run["epochs_at_most"])) for run in runs.variants.get(name, [])]
    return [run[part][METRIC] - plain[key] for run, key in keys if key in plain]


def gain(name: str, found: list[Ablation]) -> float:
    """Mean relative gain on validation over the defaults, over the datasets on which both were run."""
    shares = []
    for one in found:
        there = differences(one, name, "validation")
        if there:
            plain = statistics.mean(run["validation"][METRIC] for run in one.variants[DEFAULTS])
            shares.append(statistics.mean(there) / plain)
    return statistics.mean(shares) if shares else -math.inf


def figure(runs: Ablation, name: str, part: str) -> str:
    """Mean over seeds; in brackets the mean difference to the defaults, ± its standard deviation over seeds."""
    if name not in runs.variants:
        return ""
    value = decimal(statistics.mean(run[part][METRIC] for run in runs.variants[name]))
    there = differences(runs, name, part)
    if name == DEFAULTS or not there:
        return value
    spread = f" ± {decimal(statistics.stdev(there))}" if len(there) > 1 else ""
    return f"{value} ({signed(statistics.mean(there))}{spread})"


def signed(value: float) -> str:
    """Number with its sign: +.0012."""
    return ("−" if value < 0 else "+") + decimal(abs(value))


def changed(options: dict[str, Any]) -> str:
    """Changed options in Python's spelling."""
    words = ", ".join(f"{name}={json.dumps(value)}" for name, value in options.items())
    return f"`{words.replace('true', 'True').replace('false', 'False')}`" if options else "**defaults**"


def source(options: dict[str, Any]) -> str:
    """Papers that introduced the changed options; none for sizes."""
    found = [SOURCES.get(name) or SOURCES.get((name, value)) for name, value in options.items()]
    return "; ".join(dict.fromkeys(text for text in found if text))
