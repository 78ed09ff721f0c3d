"""Protocol of the SASRec paper: Amazon Games, each target ranked among 100 uniformly drawn items.

    python benchmarks/games_sampled.py --model sasrec ssept popularity markov --seeds 0 1 2

The models are SASRec as published (d 50, 2 blocks, 1 head, 50 items, dropout 0.5, one-negative BCE), SSE-PT with the
same encoder over items and users (its swaps chosen on validation), and the baselines. Validation targets choose the
epoch; the test is measured once. The paper has NDCG@10 0.536 and HR@10 0.741 (Kang & McAuley 2018). The result goes to
results/games_sampled.json.
"""

from __future__ import annotations

import argparse

import common

import segue

CONFIGS = {
    "sasrec": segue.SASRec.as_published(),
    "ssept": segue.SSEPT(item_width=50, user_width=50, swap_user=0.5, swap_item=0.05, swap_target=0.0),
    "popularity": segue.Popularity(),
    "markov": segue.Markov(),
}


def run(name: str, seed: int, split: segue.Split, epochs: int) -> dict[str, object]:
    """Fit one model with one seed and measure it."""
    training = segue.Training(
        epochs=epochs,
        batch_size=128,
        averaging=0.0,
        validate_every=5,
        patience=4,
        validation_candidates=100,
        validation_users=None,
        seed=seed,
    )
    config = CONFIGS[name]
    fitted = segue.fit(config, split, training=training)
    found = segue.evaluate(fitted, split.test, k=10, candidates=100, seed=seed)
    return {
        "model": name,
        "seed": seed,
        "config": config.to_dict(),
        "epochs_at_most": epochs,
        "training": fitted.metadata["training"],
        "test": {name: round(found[name], 4) for name in ("ndcg@10", "hr@10")},
        "intervals": {name: found.intervals[name] for name in ("ndcg@10", "hr@10")},
        "protocol": dict(found.protocol),
        **common.provenance(),
    }


def main() -> None:
    """Run the requested models and seeds; each run is saved when it ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", choices=CONFIGS, default=list(CONFIGS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=200, help="maximum; validation chooses among them")
    arguments = parser.parse_args()
    split = segue.leave_last_out(common.dataset("games"))
    what = "Amazon Games (Video.txt), leave-last-out, each target among 100 uniform candidates"
    for name in arguments.model:
        for seed in arguments.seeds:
            result = run(name, seed, split, arguments.epochs)
            print(name, seed, result["test"], flush=True)
            common.add_run("games_sampled", what, result)


if __name__ == "__main__":
    main()
