"""Accuracy of segue's models among all items and among sampled items, beside published figures."""

from __future__ import annotations

from collections.abc import Iterator

from pages.cells import DATA, MODELS, Result, made, mean, none_yet, seeds, table

KANG = "Kang & McAuley 2018"
TIKHONOVICH = "Tikhonovich et al. 2025"
PARTS = ("test", "refit_test")
"""Protocols in the order of the columns: the model that validation chose, and the one after the refit."""
WORDS = {"test": "no refit", "refit_test": "refit"}
PUBLISHED = {  # result: rows of (model, protocol, NDCG@10, HR@10, source), best first within a protocol
    "games_sampled": [("SASRec", "test", ".5360", ".7410", KANG)],
    "full_ranking_beauty": [
        ("WEARec", "test", ".0614", ".1041", "Xu et al. 2025, log of its program, one seed"),
        ("BSARec", "test", ".0609 ± .0005", ".1004", "Shin et al. 2024, logs of RecBoard, 5 seeds"),
        ("TV-Rec", "test", ".0608", ".1017", "Shin et al. 2025, log of its program, one seed"),
        ("ICSRec", "test", ".0578", ".0959", "Qin et al. 2024"),
        ("HSTU", "test", ".0541", "", "Zhai et al. 2024, logs of RecBoard"),
        ("DuoRec", "test", ".0443", ".0845", "Qiu et al. 2022"),
        ("ActionPiece", "test", ".0424", ".0775", "Hou et al. 2025"),
        ("SASRec, as older papers quote it", "test", ".0318", ".0605", "Rajput et al. 2023"),
        ("SASRec, sampled softmax", "refit_test", ".0531", ".0921", TIKHONOVICH),
        ("eSASRec", "refit_test", ".0523", ".0928", TIKHONOVICH),
    ],
    "full_ranking_games": [
        ("LRURec", "test", ".0620", ".1134", "Yue et al. 2024"),
        ("SASRec, in the paper on LRURec", "test", ".0583", ".1091", "Yue et al. 2024"),
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
    parts = [part for part in PARTS if any(f"{part} ndcg@10" in row for row in summary.values())]
    heads = [f"{metric}, {WORDS[part]}" for part in parts for metric in ("NDCG@10", "HR@10")]
    rows = []
    for model in sorted(summary, key=lambda model: -summary[model][f"{parts[0]} ndcg@10"]):
        row = summary[model]
        cells = [mean(row, f"{part} {metric}") for part in parts for metric in ("ndcg@10", "hr@10")]
        rows.append([MODELS.get(model, model), *cells, f"segue, {seeds(row['seeds'])}"])
    for model, protocol, ndcg, hr, source in PUBLISHED.get(name, ()):
        cells = [cell for part in parts for cell in ((ndcg, hr) if part == protocol else ("", ""))]
        rows.append([f"*{model}*", *cells, source])
    yield f"**{HEADINGS[name]}**"
    yield table(["model", *heads, "source"], rows)
    script = "games_sampled.py" if name == "games_sampled" else f"full_ranking.py --data {name.split('_', 2)[2]}"
    yield made(script, result["runs"])


def at_a_glance(results: dict[str, Result], rivals: dict[str, tuple[str, str, str]]) -> Iterator[str]:
    """Table with two rows per dataset, without and with the refit: SASRec, Markov, and the best other system.

    `rivals` maps a dataset to the name, NDCG@10 and HR@10 of the best library that was run on it, with the refit.
    Published figures compete with it in their own protocol.
    """
    rows, runs = [], []
    for data, heading in DATA.items():
        name = f"full_ranking_{data}"
        summary = results.get(name, {}).get("summary", {})
        if "sasrec" not in summary:
            continue
        for part in PARTS:
            if f"{part} ndcg@10" not in summary["sasrec"]:
                continue
            others = [
                (f"*{model}, {source}*", ndcg, hr)
                for model, protocol, ndcg, hr, source in PUBLISHED.get(name, ())
                if protocol == part
            ]
            others += [rivals[data]] if data in rivals and part == "refit_test" else []
            other, ndcg, hr = max(others, key=lambda one: float(one[1].split()[0]), default=("none known", "", ""))
            own = [mean(summary["sasrec"], f"{part} {metric}") for metric in ("ndcg@10", "hr@10")]
            counting = mean(summary.get("markov", {}), f"{part} ndcg@10")
            rows.append([heading, WORDS[part], *own, counting, ndcg, hr, other])
        runs += [run for run in results[name]["runs"] if run["model"] == "sasrec"]
    if rows:
        heads = ["", "", "SASRec(): NDCG@10", "HR@10", "Markov: NDCG@10", "best other: NDCG@10", "HR@10", "best other"]
        yield table(heads, rows, texts=(0, 1, -1))
        yield made("full_ranking.py", runs)
