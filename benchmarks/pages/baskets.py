"""Tables of the page on baskets: every model on the last basket of each household."""

from __future__ import annotations

from pages.cells import MODELS, Result, cores, decimal, made, mean, none_yet, number, seeds, table, wrapped

WHOLE = {"recall@10": "recall@10", "ndcg@10": "NDCG@10", "hr@10": "HR@10"}
"""Metric → heading of the first table."""
PARTS = {
    "repeat_recall@10": "bought before",
    "repeat_own_recall@10": "among such",
    "explore_recall@10": "new",
    "explore_own_recall@10": "among such",
    "listed_repeats@10": "repeats in lists",
}
"""Metric → heading of the second table."""


def baskets(results: dict[str, Result]) -> str:
    """Sentence on the data, and two tables with a row per model, highest NDCG@10 on the test first."""
    if "baskets" not in results:
        return none_yet("baskets.py")
    result = results["baskets"]
    runs = result["runs"]
    rows, parts = [], []
    for model, row in sorted(result["summary"].items(), key=lambda pair: -pair[1]["test ndcg@10"]):
        own = [run for run in runs if run["model"] == model]
        cost = [
            number(sum(run["seconds"] for run in own) / len(own)),
            number(max(run["users_per_second"] for run in own)),
            f"{max(run['peak_memory'] for run in own) / 1e6:,.0f}",
        ]
        whole, part = ([mean(row, f"test {metric}") for metric in metrics] for metrics in (WHOLE, PARTS))
        rows.append([named(model), *whole, *cost, seeds(int(row["seeds"]))])
        parts.append([named(model), *part])
    tables = [
        table(["", *WHOLE.values(), "s to fit", "users/s", "MB", ""], rows),
        "Recall@10 of what was bought before and of what is new, apart:",
        table(["", *PARTS.values()], parts),
    ]
    of_parsrec = [*epoch_of_parsrec(results), *losses_of_parsrec(results)]
    return "\n\n".join([of_the_data(runs[0]), *tables, made("baskets.py", runs), *of_parsrec])


def named(model: str) -> str:
    """Name of a model, with settings that are not its defaults."""
    name, *settings = model.split("+")
    return ", ".join([MODELS.get(name, name), *(f"`{setting.replace('=', ' ')}`" for setting in settings)])


def epoch_of_parsrec(results: dict[str, Result]) -> list[str]:
    """Sentence on the seconds of an epoch of PARSRec, and its source; none without a result."""
    runs = results.get("parsrec_groceries", {}).get("runs", [])
    if not runs:
        return []
    times = "; ".join(
        f"{one['seconds_per_epoch']:.0f} s on {cores(one['hardware']['threads'])} of {one['processor']}" for one in runs
    )
    text = (
        f"An epoch of PARSRec with its defaults ({runs[0]['config']['negatives']} shared negatives, repeats) takes "
        f"{times}."
    )
    return [wrapped(text), made("parsrec_speed.py --groceries", runs)]


def losses_of_parsrec(results: dict[str, Result]) -> list[str]:
    """Table of PARSRec's losses after the same number of epochs, and its source; none without a result."""
    runs = results.get("baskets_loss", {}).get("runs", [])
    if not runs:
        return []
    rows = []
    for run in runs:
        config = run["config"]
        sampled = config["loss"] == "sampled-softmax"
        rows.append(
            [
                f"{config['negatives']} shared negatives" if sampled else "softmax over all items",
                str(run["training"]["epochs"]),
                str(run["options"]["batch_size"]),
                *(decimal(run["test"][metric]) for metric in WHOLE),
            ]
        )
    text = (
        "PARSRec after the same number of epochs, with its shared negatives and with all items in the softmax, one "
        "seed, each with its default batch. The softmax takes more and smaller steps; which part of the difference "
        "comes from them was not measured."
    )
    heading = ["", "epochs", "batch size", *WHOLE.values()]
    return [wrapped(text), table(heading, rows, texts=[0]), made("baskets.py --into baskets_loss", runs)]


def of_the_data(run: Result) -> str:
    """Sentence on the size of the data and on its repeats."""
    data, protocol = run["data"], run["protocol"]
    return wrapped(
        f"{data['interactions']:,} purchases of {data['users']:,} households, {data['items']:,} products, "
        f"{data['sessions']:,} baskets of {data['items_per_session']:.1f} items; {data['bought_before']:.0%} of the "
        f"items were in an earlier basket of the household. The test has {protocol['users']:,} baskets; as a mean over "
        f"them, {decimal(protocol['repeats'])} of a basket was bought before. No refit."
    )
