"""Full ranking of every target among all items, seen items left out, on Beauty, Games and MovieLens 100K.

    python benchmarks/full_ranking.py --data beauty --model sasrec markov popularity --seeds 0 1 2

Validation targets (the last but one item of each user) choose settings and epochs. `test` is measured with that model.
`refit_test` is measured after a refit on everything but the last item, for the chosen number of epochs. Compare each
with figures of its own kind: few published ones are made with a refit. The result goes to
results/full_ranking_<data>.json.
"""

from __future__ import annotations

import argparse

import common

import segue

CONFIGS = {
    "sasrec": segue.SASRec(),
    "popularity": segue.Popularity(),
    "recent-popularity": segue.RecentPopularity(),
    "markov": segue.Markov(),
}


def run(name: str, seed: int, split: segue.Split) -> dict[str, object]:
    """Fit one model with one seed, once for each of the two figures."""
    config = CONFIGS[name]
    chosen = segue.fit(config, split, training=segue.Training(seed=seed), quiet=True)
    notes, batch_size = chosen.metadata["training"], chosen.metadata["options"]["batch_size"]
    again = segue.Training(epochs=notes.get("best_epoch", 1), batch_size=batch_size, patience=None, seed=seed)
    refitted = segue.fit(config, split.refit, training=again, quiet=True)
    result: dict[str, object] = {"model": name, "seed": seed, "config": chosen.model.config.to_dict()}
    for part, fitted in (("test", chosen), ("refit_test", refitted)):
        found = segue.evaluate(fitted, split.test, k=10)
        sampled = segue.evaluate(fitted, split.test, k=10, candidates=100, resamples=0)
        result[part] = {metric: round(found[metric], 4) for metric in ("ndcg@10", "hr@10", "coverage@10")}
        result[f"{part}_intervals"] = {metric: found.intervals[metric] for metric in ("ndcg@10", "hr@10")}
        result[f"{part}_sampled_100"] = {metric: round(sampled[metric], 4) for metric in ("ndcg@10", "hr@10")}
    return result | {
        "training": notes,
        "options": chosen.metadata["options"],
        "protocol": dict(found.protocol),
        **common.provenance(),
    }


def main() -> None:
    """Run the requested models and seeds; each run is saved when it ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=common.DATA, default="beauty")
    parser.add_argument("--model", nargs="+", choices=CONFIGS, default=list(CONFIGS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    arguments = parser.parse_args()
    split = segue.leave_last_out(common.dataset(arguments.data))
    what = f"{common.DATA[arguments.data]}, leave-last-out, all items ranked, seen items left out"
    for name in arguments.model:
        for seed in arguments.seeds:
            result = run(name, seed, split)
            print(f"{name} {seed} no refit {result['test']} refit {result['refit_test']}", flush=True)
            common.add_run(f"full_ranking_{arguments.data}", what, result)


if __name__ == "__main__":
    main()
