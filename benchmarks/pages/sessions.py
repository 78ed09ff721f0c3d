"""Tables of the page on sessions: accuracy of the models, cost of an epoch, quality of explanations."""

from __future__ import annotations

from collections.abc import Iterator

from pages.cells import MODELS, Result, made, mean, none_yet, seeds, table, wrapped


def sessions(results: dict[str, Result]) -> str:
    """Table of every model on the same sessions, and the cost of an epoch of PARSRec."""
    if "sessions" not in results:
        return none_yet("sessions.py")
    result = results["sessions"]
    names = ("sess_prec@10", "step_hr@10", "step_ndcg@10")
    heads = ["", *(f"{name}, {what}" for what in ("all items", "99 sampled") for name in names), ""]
    rows = [
        [
            MODELS[model],
            *(mean(row, f"test {way} {name}") for way in ("all", "sampled") for name in names),
            seeds(int(row["seeds"])),
        ]
        for model, row in sorted(result["summary"].items(), key=lambda pair: -pair[1]["test all step_ndcg@10"])
    ]
    rows.append(["*PARSRec's program*", "", "", "", "*.74*", "*.74*", "*.51*", "*its plot, epoch 45*"])
    parts = [table(heads, rows), made("sessions.py", result["runs"])]
    return "\n\n".join([*parts, *epoch_of_parsrec(results)])


def epoch_of_parsrec(results: dict[str, Result]) -> Iterator[str]:
    """Sentence on the seconds per epoch in the published setting, and on those that matrix products alone need."""
    if "parsrec_speed" not in results:
        return
    peer, runs = results["parsrec_speed"]["peer"], results["parsrec_speed"]["runs"]
    parts = ["An epoch in the published setting (full softmax), on one core:"]
    for one in runs:
        text = (
            f"- {one['processor']}: {one['seconds_per_epoch']:.1f} s. The {one['teraflop_per_epoch']:.2f} · 10¹² "
            f"floating-point operations of the epoch alone need {one['seconds_at_peak']:.1f} s there at the speed of a "
            "large matrix product."
        )
        if one["processor"] == peer["processor"]:
            times = peer["seconds_per_epoch"] / one["seconds_per_epoch"]
            text += f" PARSRec's program takes {peer['seconds_per_epoch']} s, {times:.1f} times as long."
        parts.append(wrapped(text, "  "))
    yield "\n".join([parts[0], "", *parts[1:]])
    yield made("parsrec_speed.py", runs)


def explanations(results: dict[str, Result]) -> str:
    """Tables of explanation methods beside co-occurrence counts and the aims."""
    if "explanations" not in results:
        return none_yet("explanations.py")
    runs = results["explanations"]["runs"]
    return "\n\n".join([*(part for run in runs for part in explained(run)), made("explanations.py", runs)])


def explained(result: Result) -> Iterator[str]:
    """Table and description of one run."""
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
    for position, part in enumerate(("the strongest item", "the stronger half")):
        found_ratios = [cost[name]["ratios"][position] for name in methods[:2]]
        ratios = ["no drop at random" if ratio is None else f"{ratio:.1f} ×" for ratio in found_ratios]
        rows.append([f"drop without {part}, relative to random", *ratios, "", "≥ 2 ×" if position == 0 else ""])
    heads = [result["data"], "leave-one-out", "attention", "co-occurrence (ceiling)", "aim for the better method"]
    yield table(heads, rows)
    yield wrapped(
        f"{result['steps']:,} steps of {result['sessions']:,} test sessions. A linear probe on the user vectors "
        f"separates the two groups with an AUC of {result['separation_auc']:.3f} (aim: 0.95)."
    )
