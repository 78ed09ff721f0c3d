"""A search for settings beside the defaults."""

from __future__ import annotations

from pages.cells import MODELS, Result, decimal, made, none_yet, number, table, wrapped

DATA = {"journey": "The Complete Journey", "synthetic": "PARSRec's synthetic.txt"}
NAMES = {**MODELS, "vsknn": "V-SKNN", "item-knn": "item neighbours", "tifu-knn": "TIFU-KNN", "up-cf": "UP-CF"}


def tuned(results: dict[str, Result]) -> str:
    """Table with a row for each data set, model and seed of the search."""
    runs = results.get("tuning", {}).get("runs", [])
    if not runs:
        return none_yet("tuning.py")
    several = len({run["seed"] for run in runs}) > 1
    heads = ["data", "model", *(["search"] if several else []), "trials", "full trainings"]
    heads += ["validation", "gain", "test", "gain", "95 % interval of the gain"]
    rows = []
    for run in sorted(runs, key=lambda run: (list(DATA).index(run["data"]), run["model"], run["seed"])):
        low, high = (100 * one / run["test"]["defaults"] for one in run["test_difference"]["interval"])
        rows.append(
            [
                DATA[run["data"]],
                NAMES.get(run["model"], run["model"]),
                *([f"seed {run['seed']}"] if several else []),
                f"{run['trials']}",
                number(run["full_trainings"]),
                *(cell for part in ("validation", "test") for cell in _change(run[part])),
                f"{_signed(low)} to {_signed(high)}",
            ]
        )
    text = (
        "NDCG@10 with the defaults and with the settings of the best trial, after the processor time of twenty full "
        "trainings. The last session of each user is the test, the last but one is validation, and all items are "
        "ranked. The test was looked at once, after the search; its interval is that of the gain over the same users."
    )
    return "\n\n".join([wrapped(text), table(heads, rows, texts=[0, 1]), made("tuning.py", runs)])


def _change(values: dict[str, float]) -> list[str]:
    """Value with the defaults and after the search, and the gain in percent."""
    before, after = values["defaults"], values["tuned"]
    return [f"{decimal(before)} → {decimal(after)}", _signed(100 * (after - before) / before)]


def _signed(percent: float) -> str:
    """Percentage with its sign: +5.3 %."""
    return f"{percent:+.1f} %".replace("-", "−")
