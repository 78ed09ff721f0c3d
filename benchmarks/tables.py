"""Tables of measured results in README.md and the pages of docs/, made from benchmarks/results/*.json.

    python benchmarks/tables.py            # write them between the markers on these pages
    python benchmarks/tables.py --check    # compare only; exit code 1 if a page would change

Pages show all existing results. Figures of papers and other programs stand beside them with their source. `pages/` has
a module per page.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from pages import (
    accuracy,
    baskets,
    content,
    divided,
    options,
    parts,
    ratings,
    refresh,
    rivals,
    scaling,
    serving,
    sessions,
    shards,
    speed,
    tuning,
    turns,
)
from pages.cells import Result, none_yet, read_results

ROOT = Path(__file__).resolve().parent.parent
DOCS, RESULTS = ROOT / "docs", ROOT / "benchmarks" / "results"


def at_a_glance(results: dict[str, Result]) -> str:
    """Two tables of the README: accuracy and speed."""
    good = accuracy.at_a_glance(results, rivals.best_others(results))
    return "\n\n".join([*good, *turns.at_a_glance(results)]) or none_yet("full_ranking.py", "peers/turns.py")


PAGES: dict[str, tuple[Path, dict[str, Callable[[dict[str, Result]], str]]]] = {
    "readme": (ROOT / "README.md", {"results": at_a_glance}),
    "sessions": (
        DOCS / "sessions.md",
        {"sessions": sessions.sessions, "explanations": sessions.explanations},
    ),
    "experiments": (DOCS / "experiments.md", {"tuning": tuning.tuned}),
    "baskets": (DOCS / "baskets.md", {"baskets": baskets.baskets}),
    "living": (DOCS / "living-models.md", {"refresh": refresh.refresh}),
    "ratings": (
        DOCS / "ratings.md",
        {"ratings": ratings.ratings, "folds": ratings.folds, "speed": ratings.rating_speed},
    ),
    "production": (DOCS / "production.md", {"serving": serving.measured}),
    "beyond": (
        DOCS / "beyond-one-machine.md",
        {"shards": shards.shards, "divided": divided.divided, "parts": parts.parts},
    ),
    "scaling": (
        DOCS / "scaling.md",
        {"scaling": scaling.measured, "on paper": scaling.on_paper, "cluster": scaling.cluster},
    ),
    "benchmarks": (
        DOCS / "benchmarks.md",
        {
            "rivals": rivals.side_by_side,
            "ratios": turns.ratios,
            "settings": rivals.settings,
            "curves": rivals.pictures,
            "defaults": accuracy.defaults,
            "sampled": accuracy.sampled,
            "ablation": options.ablation,
            "time cut": options.time_cut,
            "step": speed.step,
            "limits": speed.limits,
            "alone": speed.alone,
            "warm": content.warm,
            "cold": content.cold,
        },
    ),
}
"""Pages with their markers, and the function that makes the tables of each marker."""


def put_in(text: str, name: str, tables: str) -> str:
    """Text of a page with the tables between the markers of this name."""
    opening, closing = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    before, start, rest = text.partition(opening)
    _, end, after = rest.partition(closing)
    if not (start and end):
        raise SystemExit(f"a page lacks {opening} or {closing}.")
    return f"{before}{start}\n{tables}\n{end}{after}"


def main(argv: Sequence[str] | None = None) -> int:
    """Write or check; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare only; exit code 1 if a page would change")
    for name, (page, _) in PAGES.items():
        parser.add_argument(f"--{name}", type=Path, default=page)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args(argv)
    results = read_results(arguments.results)
    wanted: dict[Path, str] = {}
    for name, (_, markers) in PAGES.items():
        page = getattr(arguments, name)
        text = page.read_text(encoding="utf-8")
        for marker, tables in markers.items():
            text = put_in(text, marker, tables(results))
        wanted[page] = text
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
