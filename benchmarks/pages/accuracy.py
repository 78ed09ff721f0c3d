"""Accuracy of segue's models among all items and among sampled items, beside published figures."""

from __future__ import annotations

from collections.abc import Iterator

from pages.cells import DATA, MODELS, Result, made, mean, none_yet, seeds, table

KANG = "Kang & McAuley 2018"
TIKHONOVICH = "Tikhonovich et al. 2025"
PUBLISHED = {  # result: rows of (model, NDCG@10, HR@10, source), best first
    "games_sampled": [("SASRec", ".5360", ".7410", KANG)],
    "full_ranking_beauty": [
        ("SASRec, sampled softmax", ".0531", ".0921", TIKHONOVICH),
        ("eSASRec", ".0523", ".0928", TIKHONOVICH),
        ("DuoRec", ".0443", ".0845", "Qiu et al. 2022"),
        ("ActionPiece", ".0424", ".0775", "Hou et al. 2025"),
        ("SASRec, as older papers quote it", ".0318", ".0605", "Rajput et al. 2023"),
    ],
}
HEADINGS = {
    "full_ranking_beauty": "Among all items: Amazon Beauty (12,101 items)",
    "full_ranking_games": "Among all items: Amazon Games (23,715 items)",
    "full_ranking_ml-100k": "Among all items: MovieLens 100K (1,682 items)",
    "games_sampled": "Among 100 sampled items: Amazon Games",
}


def defaults(results: dict[str, Result]) -> str:
    """Tables of segue's models with their defaults on each dataset, ranked among all items."""
    parts = [part for name in HEADINGS if name in results and name != "games_sampled" for part in of(name, results)]
    return "\n\n".join(parts or [none_yet("full_ranking.py")])


def sampled(results: dict[str, Result]) -> str:
    """Table of the SASRec paper's protocol: each target among 100 sampled items."""
    return "\n\n".join(of("games_sampled", results) if "games_sampled" in results else [none_yet("games_sampled.py")])


def of(name: str, results: dict[str, Result]) -> Iterator[str]:
    """Heading and table of one dataset: a row per model, best first, then published figures."""
    result = results[name]
    summary = result["summary"]
    parts = [part for part in ("test", "refit_test") if any(f"{part} ndcg@10" in row for row in summary.values())]
    last = parts[-1]
    both = len(parts) == 2
    heads = ["NDCG@10, refit", "HR@10, refit", "NDCG@10", "HR@10"] if both else ["NDCG@10", "HR@10"]
    rows = []
    for model in sorted(summary, key=lambda model: -summary[model][f"{last} ndcg@10"]):
        row = summary[model]
        cells = [mean(row, f"{part} {metric}") for part in reversed(parts) for metric in ("ndcg@10", "hr@10")]
        rows.append([MODELS.get(model, model), *cells, f"segue, {seeds(row['seeds'])}"])
    for model, ndcg, hr, source in PUBLISHED.get(name, ()):
        rows.append([f"*{model}*", ndcg, hr, *(["", ""] if both else []), source])
    yield f"**{HEADINGS[name]}**"
    yield table(["model", *heads, "source"], rows)
    script = "games_sampled.py" if name == "games_sampled" else f"full_ranking.py --data {name.split('_', 2)[2]}"
    yield made(script, result["runs"])


def at_a_glance(results: dict[str, Result], rivals: dict[str, tuple[str, str, str]]) -> Iterator[str]:
    """Table with a row per dataset: SASRec with its defaults, Markov, and the best other system.

    `rivals` maps a dataset to the name, NDCG@10 and HR@10 of the best library that was run on it. Published figures
    compete with it.
    """
    rows, runs = [], []
    for data, heading in DATA.items():
        name = f"full_ranking_{data}"
        summary = results.get(name, {}).get("summary", {})
        if "sasrec" not in summary:
            continue
        others = [(f"*{model}, {source}*", ndcg, hr) for model, ndcg, hr, source in PUBLISHED.get(name, ())]
        others += [rivals[data]] if data in rivals else []
        other, ndcg, hr = max(others, key=lambda one: float(one[1]), default=("", "", ""))
        own = [mean(summary["sasrec"], f"refit_test {metric}") for metric in ("ndcg@10", "hr@10")]
        counting = mean(summary.get("markov", {}), "refit_test ndcg@10")
        rows.append([heading, *own, counting, ndcg, hr, other])
        runs += [run for run in results[name]["runs"] if run["model"] == "sasrec"]
    if rows:
        heads = ["", "SASRec(): NDCG@10", "HR@10", "Markov: NDCG@10", "best other: NDCG@10", "HR@10", "best other"]
        yield table(heads, rows)
        yield made("full_ranking.py", runs)
