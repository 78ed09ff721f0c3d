"""The tables of measured results in README.md and on pages in docs/, made from benchmarks/results/*.json.

    python benchmarks/tables.py            # write them between the markers on these pages
    python benchmarks/tables.py --check    # say whether they are there already; exit code 1 if not

Whatever results exist are shown; figures of papers and other programs stand beside ours with their source.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import scaling_tables
from cells import Result, cores, decimal, made, mean, seeds, table

ROOT = Path(__file__).resolve().parent.parent
README, RESULTS = ROOT / "README.md", ROOT / "benchmarks" / "results"
SESSIONS = ROOT / "docs" / "sessions.md"
RATINGS = ROOT / "docs" / "ratings.md"
SCALING = ROOT / "docs" / "scaling.md"

NAMES = {
    "sasrec": "SASRec",
    "ssept": "SSE-PT",
    "parsrec": "PARSRec",
    "markov": "Markov",
    "popularity": "Popularity",
    "recent-popularity": "RecentPopularity",
    "global-mean": "Mean of all ratings",
    "rating-bias": "User and item bias",
    "matrix-factorization": "Matrix factorization",
    "arerec": "ARERec, defaults",
    "arerec, per rating": "ARERec, context units per rating",
    "arerec, published": "ARERec as published, training only",
    "arerec, published with its leak": "ARERec as published, **with its leak**",
}
KANG = "Kang & McAuley 2018"
TIKHONOVICH = "Tikhonovich et al. 2025"
PUBLISHED = {  # result → rows of (model, NDCG@10, HR@10, source)
    "games_sampled": [("SASRec", ".5360", ".7410", KANG)],
    "full_ranking_beauty": [
        ("SASRec, as older papers quote it", ".0318", ".0605", "Rajput et al. 2023"),
        ("SASRec, sampled softmax", ".0531", ".0921", TIKHONOVICH),
        ("eSASRec", ".0523", ".0928", TIKHONOVICH),
    ],
}
HEADINGS = {
    "games_sampled": "Sampled: Amazon Games, each target among 100 random items",
    "full_ranking_beauty": "All items: Amazon Beauty (12,101 items)",
    "full_ranking_games": "All items: Amazon Games (23,715 items)",
    "full_ranking_ml-100k": "All items: MovieLens 100K (1,682 items)",
}


def render(results: dict[str, Result]) -> str:
    """All tables, as Markdown."""
    parts = [part for name in HEADINGS if name in results for part in accuracy(name, results[name])]
    notebooks = [results[name] for name in sorted(results) if name.startswith("notebook_")]
    if notebooks:
        parts += speed(notebooks)
    if "prepare" in results:
        parts += preparation(results["prepare"])
    if "session_file" in results:
        parts += reading_sessions(results["session_file"])
    if "simulate" in results:
        parts += simulation(results["simulate"])
    return "\n\n".join(parts or ["No results yet: run the scripts in `benchmarks/`."])


def accuracy(name: str, result: Result) -> Iterator[str]:
    """A row per model, best first, then the published figures."""
    summary = result["summary"]
    parts = [part for part in ("test", "refit_test") if any(f"{part} ndcg@10" in row for row in summary.values())]
    last = parts[-1]
    both = len(parts) == 2
    heads = ["NDCG@10, trained again", "HR@10, trained again", "NDCG@10", "HR@10"] if both else ["NDCG@10", "HR@10"]
    rows = []
    for model in sorted(summary, key=lambda model: -summary[model][f"{last} ndcg@10"]):
        row = summary[model]
        cells = [mean(row, f"{part} {metric}") for part in reversed(parts) for metric in ("ndcg@10", "hr@10")]
        rows.append([NAMES.get(model, model), *cells, f"segue, {seeds(row['seeds'])}"])
    for model, ndcg, hr, source in PUBLISHED.get(name, ()):
        rows.append([f"*{model}*", ndcg, hr, *(["", ""] if both else []), source])
    yield f"**{HEADINGS[name]}**"
    yield table(["model", *heads, "source"], rows)
    script = "games_sampled.py" if name == "games_sampled" else f"full_ranking.py --data {name.split('_', 2)[2]}"
    yield made(script, result["runs"])


def speed(notebooks: Sequence[Result]) -> Iterator[str]:
    """Ours on each number of threads beside the peer's."""
    peer = notebooks[0]["peer"]
    heads = ["", *(f"segue, {cores(one['hardware']['threads'])}" for one in notebooks), "recommenders 1.2.1, one core"]
    users, items = notebooks[0]["full_evaluation_shape"]
    lines: list[tuple[str, list[str], str]] = [
        ("seconds per epoch", [f"{one['seconds_per_epoch']:.1f}" for one in notebooks], str(peer["seconds_per_epoch"])),
        (
            "NDCG@10 after 10 epochs",
            [decimal(one["sampled"]["ndcg@10"]) for one in notebooks],
            decimal(peer["ndcg@10"]),
        ),
        ("HR@10 after 10 epochs", [decimal(one["sampled"]["hr@10"]) for one in notebooks], decimal(peer["hr@10"])),
        (
            "users evaluated per second, 100 items each",
            [f"{one['sampled_users_per_second']:,}" for one in notebooks],
            str(peer["evaluated_users_per_second"]),
        ),
        (
            f"seconds to rank {users:,} users × {items:,} items",
            [f"{one['full_evaluation_seconds']['ranks']:.1f}" for one in notebooks],
            "",
        ),
    ]
    yield "**Speed: the setting of Microsoft's SASRec notebook, on Amazon Games**"
    yield table(heads, [[what, *ours, theirs] for what, ours, theirs in lines])
    yield (
        made("notebook.py", notebooks)
        + " Microsoft's `recommenders` (TensorFlow 2.15) was measured before, on the same kind of machine."
    )


def preparation(result: Result) -> Iterator[str]:
    """One line."""
    options = result["options"]
    yield "**Speed: `segue prepare`**"
    yield (
        f"{options['rows']:,} ratings in a CSV file, {options['k_core']}-core: {result['seconds']:.0f} s, "
        f"{result['peak_mb']:,} MB of memory at most."
    )
    yield made("prepare.py", [result])


def reading_sessions(result: Result) -> Iterator[str]:
    """One line."""
    sizes = result["sizes"]
    yield "**Speed: a session file**"
    yield (
        f"PARSRec's `synthetic.txt` ({sizes['sessions']:,} sessions, {sizes['interactions']:,} interactions) read, "
        f"prepared, opened and split: {result['seconds']:.2f} s. Its own script turns the file into a binary one in "
        f"{result['reference']['cpu_seconds']} s of CPU time."
    )
    yield made("session_file.py", [result])


def simulation(result: Result) -> Iterator[str]:
    """One line."""
    options, written = result["options"], result["written"]
    yield "**Speed: `segue simulate`**"
    yield (
        f"{written['sessions']:,} sessions of {options['users']:,} users, {options['items']:,} items, to Parquet: "
        f"{result['seconds']:.0f} s, {result['peak_mb']:,} MB of memory at most."
    )
    yield made("simulate.py", [result])


def sessions(results: dict[str, Result]) -> str:
    """The page on sessions: every model on the same sessions, and what an epoch of PARSRec costs."""
    if "sessions" not in results:
        return "No results yet: run `benchmarks/sessions.py`."
    result = results["sessions"]
    names = ("sess_prec@10", "step_hr@10", "step_ndcg@10")
    heads = ["", *(f"{name}, {what}" for what in ("all items", "99 sampled") for name in names), ""]
    rows = [
        [
            NAMES[model],
            *(mean(row, f"test {way} {name}") for way in ("all", "sampled") for name in names),
            seeds(int(row["seeds"])),
        ]
        for model, row in sorted(result["summary"].items(), key=lambda pair: -pair[1]["test all step_ndcg@10"])
    ]
    rows.append(["*PARSRec's program*", "", "", "", "*.74*", "*.74*", "*.51*", "*its plot, epoch 45*"])
    parts = [table(heads, rows), made("sessions.py", result["runs"])]
    return "\n\n".join([*parts, *epoch_of_parsrec(results)])


def epoch_of_parsrec(results: dict[str, Result]) -> Iterator[str]:
    """Seconds per epoch in the published setting, and how many the matrix products alone need."""
    if "parsrec_speed" not in results:
        return
    result = results["parsrec_speed"]
    yield (
        f"An epoch in the published setting (full softmax) takes {result['seconds_per_epoch']:.1f} s on "
        f"{cores(result['hardware']['threads'])}, that of PARSRec's program {result['peer']['seconds_per_epoch']} s "
        f"on a core of the same kind, {result['times_faster']} times as long. Its "
        f"{result['teraflop_per_epoch']:.2f} · 10¹² floating-point operations alone need "
        f"{result['seconds_at_peak']:.0f} s here at the speed of a large matrix product."
    )
    yield made("parsrec_speed.py", [result])


def ratings(results: dict[str, Result]) -> str:
    """The page on ratings: every model on the same test ratings, then the published setting."""
    parts = []
    for name, heading in (
        ("ratings_all", "All rows, a random fifth is the test"),
        ("ratings_published", "ARERec's own preparation, a random fifth is the test"),
    ):
        if name in results:
            parts += [f"**{heading}**", rated(results[name]), made("ratings.py", results[name]["runs"])]
    return "\n\n".join(parts or ["No results yet: run `benchmarks/ratings.py`."])


def rated(result: Result) -> str:
    """A row per model as validation chose it, the best expected rating first, and its RMSE trained again."""
    names = {
        "rmse": "RMSE",
        "mae": "MAE",
        "log_loss": "log-loss",
        "own_hr@10": "HR@10 of own",
        "own_ndcg@10": "NDCG@10 of own",
        "own_hr@10 by class": "HR@10 by class",
    }
    rows = [
        [
            NAMES[model],
            *(mean(row, name) for name in ("refit_test rmse", *(f"test {name}" for name in names))),
            seeds(int(row["seeds"])),
        ]
        for model, row in sorted(result["summary"].items(), key=lambda pair: pair[1]["test rmse"])
    ]
    return table(["", "RMSE, trained again", *names.values(), ""], rows)


def rating_speed(results: dict[str, Result]) -> str:
    """The page on ratings: seconds per epoch beside the program's, and what large logs take."""
    parts = []
    if "arerec_speed" in results:
        result = results["arerec_speed"]
        own = result["seconds_per_epoch"]
        parts += [
            f"An epoch in the published setting ({result['ratings']:,} ratings, "
            f"{result['parameters']['per rating'] / 1e6:.0f} million weights) takes {own['per rating']:.1f} s on "
            f"{cores(result['hardware']['threads'])}; ARERec's program took {result['peer_seconds_per_epoch']} s on a "
            f"core of the same kind, {result['times_faster']:.0f} times as long. With shared units "
            f"({result['parameters']['shared'] / 1e6:.1f} million weights) it takes {own['shared']:.1f} s.",
            made("arerec_speed.py", [result]),
        ]
    sizes = [results[name] for name in sorted(results, key=_length_and_name) if name.startswith("rating_size_")]
    if sizes:
        heads = ["made ratings", "learnt from", "s per epoch", "s per million", "weights", "peak memory"]
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
    return "\n\n".join(parts or ["No results yet: run `benchmarks/arerec_speed.py` and `benchmarks/rating_size.py`."])


def _length_and_name(name: str) -> tuple[int, str]:
    return len(name), name


def explanations(results: dict[str, Result]) -> str:
    """The page on sessions: each method against what counting reaches, and the aims."""
    if "explanations" not in results:
        return "No results yet: run `benchmarks/explanations.py`."
    runs = results["explanations"]["runs"]
    return "\n\n".join([*(part for run in runs for part in explained(run)), made("explanations.py", runs)])


def explained(result: Result) -> Iterator[str]:
    """One run: what it is, and its table."""
    found, cost = result["agreement"], result["deletion"]
    methods = ["leave-one-out", "attention", "co-occurrence"]
    rows = [
        [f"{what}, group {group + 1}", *(f"{found[name][key][group]:.2f}" for name in methods), bar]
        for key, what, bar in (
            ("rank", f"rank correlation, {result['pairs']['related']} pairs", "≥ 0.85"),
            ("linear", f"linear correlation, {result['pairs']['all']} pairs", "≥ 0.65"),
        )
        for group in (0, 1)
    ]
    signs = [f"{found[name]['signs']} of {found[name]['differing']}" for name in methods]
    rows.append(["pairs that differ, right sign", *signs, "4 of 4"])
    for place, what in enumerate(("the strongest item", "the stronger half")):
        found_ratios = [cost[name]["ratios"][place] for name in methods[:2]]
        ratios = ["none at random" if ratio is None else f"{ratio:.1f} ×" for ratio in found_ratios]
        rows.append([f"fall without {what}, against random", *ratios, "", "≥ 2 ×" if place == 0 else ""])
    heads = [result["data"], "leave-one-out", "attention", "co-occurrence (ceiling)", "aim for the better"]
    yield table(heads, rows)
    yield (
        f"{result['steps']:,} steps of {result['sessions']:,} test sessions. A linear probe tells the two groups apart "
        f"by the user vectors with an AUC of {result['separation_auc']:.3f} (aim: 0.95)."
    )


# ---- the pages -----------------------------------------------------------------------------------------------------


def read_results(folder: Path) -> dict[str, Result]:
    """Every result by the name of its file."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def put_in(text: str, name: str, tables: str) -> str:
    """A page's text with the tables between the markers of that name."""
    opening, closing = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    before, start, rest = text.partition(opening)
    _, end, after = rest.partition(closing)
    if not (start and end):
        raise SystemExit(f"a page lacks {opening} or {closing}.")
    return f"{before}{start}\n{tables}\n{end}{after}"


def main(argv: Sequence[str] | None = None) -> int:
    """Write or check; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 1 if a page would change")
    parser.add_argument("--readme", type=Path, default=README)
    parser.add_argument("--sessions", type=Path, default=SESSIONS)
    parser.add_argument("--ratings", type=Path, default=RATINGS)
    parser.add_argument("--scaling", type=Path, default=SCALING)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args(argv)
    results = read_results(arguments.results)
    sessions_page = put_in(arguments.sessions.read_text(encoding="utf-8"), "sessions", sessions(results))
    ratings_page = put_in(arguments.ratings.read_text(encoding="utf-8"), "ratings", ratings(results))
    scaling_page = put_in(arguments.scaling.read_text(encoding="utf-8"), "scaling", scaling_tables.measured(results))
    wanted = {
        arguments.scaling: put_in(scaling_page, "on paper", scaling_tables.on_paper(results)),
        arguments.readme: put_in(arguments.readme.read_text(encoding="utf-8"), "results", render(results)),
        arguments.sessions: put_in(sessions_page, "explanations", explanations(results)),
        arguments.ratings: put_in(ratings_page, "speed", rating_speed(results)),
    }
    changed = [page for page, text in wanted.items() if page.read_text(encoding="utf-8") != text]
    if arguments.check and changed:
        names = " and ".join(page.name for page in changed)
        print(
            f"{names} and benchmarks/results disagree: run `python benchmarks/tables.py` and look at what changed.",
            file=sys.stderr,
        )
        return 1
    for page in changed:
        page.write_text(wanted[page], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
