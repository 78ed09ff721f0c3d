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
    """Table of the results `name` with each dataset for {}, and of the defaults in the results `defaults`."""
    parts = []
    for data in DATA:
        if name.format(data) in results:
            runs = results[name.format(data)]["runs"]
            elsewhere = results.get(defaults.format(data), {}) if defaults else {}
            found = Ablation.of(runs, defaults_elsewhere(elsewhere))
            parts += [f"**{DATA[data]}**", by_gain(found), made(f"{command} --data {data}", runs)]
    return "\n\n".join(parts) if parts else none_yet(command)


def by_gain(found: Ablation) -> str:
    """Table with a row per variant, best validation first: NDCG@10, and its gain over the defaults."""
    rows = []
    for name in sorted(found.variants, key=lambda name: gain(name, found), reverse=True):
        options = {} if name == DEFAULTS else found.variants[name][0]["changed"]
        cells = [figure(found, name, part) for part in PARTS]
        rows.append([changed(options), *cells, str(len(found.variants[name])), source(options)])
    return table(["", *PARTS, "seeds", "source"], rows)


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


def gain(name: str, found: Ablation) -> float:
    """Mean gain on validation over the defaults, over the seeds that both ran."""
    there = differences(found, name, "validation")
    return statistics.mean(there) if there else -math.inf


def figure(runs: Ablation, name: str, part: str) -> str:
    """Mean over seeds; in brackets the mean difference to the defaults, ± its standard deviation over seeds."""
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
