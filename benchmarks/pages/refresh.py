"""Weekly refreshes beside trainings from nothing."""

from __future__ import annotations

from pages.cells import Result, decimal, made, none_yet, table, wrapped


def refresh(results: dict[str, Result]) -> str:
    """A row for each week, and one for their mean."""
    found = results.get("refresh")
    if not found:
        return none_yet("refresh.py")
    protocol, weeks = found["protocol"], found["weeks"]
    which = {"all": "all windows", "newest": "the newest window of each history"}[protocol["windows"]]
    purchases = f"{weeks[0]['interactions']:,} to {weeks[-1]['interactions']:,} purchases"
    text = (
        f"{protocol['households']} households, {purchases}, products with five purchases or more in the whole log, and "
        f"the product table. The last purchase of each household is the test; items of the history stay in the "
        f"ranking. A refresh trains for {protocol['refresh_epochs']} epochs on {which}, from nothing for "
        f"{protocol['epochs']}; validation chooses among them. CPU seconds of all steps, on one core."
    )
    heads = ["week", "NDCG@10: refreshed", "from nothing", "share"]
    heads += ["CPU s: refreshed", "from nothing", "share"]
    rows = [
        [
            str(week["week"]),
            decimal(week["refresh"]["ndcg@10"]),
            decimal(week["from_nothing"]["ndcg@10"]),
            f"{week['share_of_ndcg']:.3f}",
            f"{week['refresh']['cpu_seconds']:.1f}",
            f"{week['from_nothing']['cpu_seconds']:.1f}",
            f"{week['share_of_time']:.3f}",
        ]
        for week in weeks
    ]
    means = ["mean", "", "", f"{found['mean_share_of_ndcg']:.3f}", "", "", f"{found['mean_share_of_time']:.3f}"]
    return "\n\n".join([wrapped(text), table(heads, [*rows, means], texts=[0]), made("refresh.py", [found])])
