"""Do PARSRec's explanations say what is true? Attention and leave-one-out against the planted structure.

    python benchmarks/explanations.py --run runs/parsrec        # a run on synthetic.txt with the split last-session-out
    python benchmarks/explanations.py                           # trains one first, in the folder runs/explanations

The data is PARSRec's `synthetic.txt` (1,024 users, 100 sessions each, 20 categories of 100 products), in
the folder `parsrec` of the one that SEGUE_TEST_DATA names; its truth is that of `segue.simulate` with the same
constants. For a run on other simulated data, give --truth. Measured on the sessions of the test part, step by step:

- the category-by-category matrix of each group (`segue.evaluation.category_maps`), made symmetric, against the planted
  covariances: Spearman over the 22 pairs that are not zero in either group (the same in both), Pearson over all 190,
  and the sign of the difference in the pairs on which the groups differ;
- the area under the ROC of a linear probe of the user vectors for the group, five-fold;
- deletion: the fall of the log-probability of the best suggestion without what is explained as strongest, against
  random.

Co-occurrence in the sessions of the training part is the ceiling. The result goes to results/explanations.json, the
pictures to docs/images.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import common
import numpy as np

import segue
from segue.data.planted import Market, plant
from segue.data.splits import Split, split_by
from segue.evaluation.agreement import Agreement, agreement, cooccurrence, separation
from segue.evaluation.category_maps import category_maps
from segue.evaluation.deletion import Deletion, Method, deletion
from segue.evaluation.heatmaps import draw_maps, draw_reasons
from segue.evaluation.labels import Labels, planted_labels

IMAGES = Path(__file__).parent.parent / "docs" / "images"
MARKET = Market(users=1024, sessions=100, products=100, price_effect=0.1, longest=10)
"""What made `synthetic.txt`, as far as categories and groups go."""
METHODS: tuple[Method, ...] = ("leave-one-out", "attention")


def trained(folder: Path, epochs: int) -> segue.Recommender:
    """A PARSRec in the published setting, its epoch chosen on the validation sessions."""
    data = os.environ.get("SEGUE_TEST_DATA")
    if not data:
        raise SystemExit("Set SEGUE_TEST_DATA to the folder that holds parsrec/synthetic.txt, or give --run.")
    dataset = segue.prepare(Path(data) / "parsrec" / "synthetic.txt", duplicates="keep")
    training = segue.Training(
        epochs=epochs, batch_size=256, clip_norm=30.0, beta2=0.999, metric="sess_prec@10", validate_every=3, patience=5
    )
    return segue.fit(segue.PARSRec(), segue.last_session_out(dataset), training=training, out=folder)


def measure(recommender: segue.Recommender, truth: segue.Planted) -> dict[str, Any]:
    """Everything that is reported, and the pictures."""
    split = split_by(recommender.dataset, recommender.metadata["split"])
    categories, groups = planted_labels(truth, recommender.dataset)
    maps = category_maps(recommender.model, split.test, categories, groups)
    matrices = {"leave-one-out": maps.effects, "attention": maps.attention}
    draw_maps(IMAGES / "explanations-effects.png", maps)
    draw_maps(IMAGES / "explanations-attention.png", maps, "attention")
    draw_example(recommender, split)
    counts = cooccurrence(split.train, categories, groups)
    return {
        "steps": maps.steps,
        "sessions": len(split.test),
        "pairs": {"related": int((np.triu(truth.omega.any(axis=0), 1) != 0).sum()), "all": pairs_of(categories)},
        "agreement": {
            "co-occurrence": rounded(agreement(counts, truth.omega)),
            **{name: rounded(agreement(matrix, truth.omega)) for name, matrix in matrices.items()},
        },
        "separation_auc": round(separation(*vectors_of(recommender, groups)), 4),
        "deletion": {name: costs(deletion(recommender.model, split.test, name)) for name in METHODS},
    }


def pairs_of(labels: Labels) -> int:
    """Number of pairs of different labels."""
    return len(labels.names) * (len(labels.names) - 1) // 2


def vectors_of(recommender: segue.Recommender, groups: Labels) -> tuple[np.ndarray, np.ndarray]:
    """The vectors of the users who have a group, and their groups."""
    users = np.flatnonzero(groups.codes >= 0)
    vectors = recommender.model.users.weight.detach().cpu().double().numpy()
    return vectors[users], groups.codes[users]


def draw_example(recommender: segue.Recommender, split: Split) -> None:
    """The first user's test session but for its last item, explained."""
    dataset, test = recommender.dataset, split.test
    user = dataset.users.decode(test.users[:1])[0]
    session = dataset.items[test.history_ends[0] : test.target_ends[0]]
    basket = dataset.catalogue.decode(session[:-1]).to_list()
    lists = recommender.recommend(user, basket=basket, k=8)
    why = recommender.explain(user, lists["item"], basket=basket, by=["basket", "user"], measure="log-probability")
    draw_reasons(IMAGES / "explanations-one.png", why, recommender.attention(user, basket=basket))


def rounded(found: Agreement) -> dict[str, Any]:
    """As plain data."""
    return {
        "rank": [round(value, 4) for value in found.rank],
        "linear": [round(value, 4) for value in found.linear],
        "signs": found.signs,
        "differing": found.differing,
    }


def costs(found: Deletion) -> dict[str, Any]:
    """As plain data."""
    return {name: round(value, 4) for name, value in asdict(found).items()} | {
        "ratios": [round(value, 2) if np.isfinite(value) else None for value in found.ratios]
    }


def main() -> None:
    """Measure a run, or train one and measure it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", help="a PARSRec trained with the split last-session-out")
    parser.add_argument("--truth", help="the .truth.npz of the data of the run; that of synthetic.txt when not given")
    parser.add_argument("--epochs", type=int, default=50, help="at most, where one is trained first")
    arguments = parser.parse_args()
    recommender = segue.load(arguments.run) if arguments.run else trained(Path("runs/explanations"), arguments.epochs)
    truth = segue.Planted.load(arguments.truth) if arguments.truth else plant(MARKET)
    found = measure(recommender, truth)
    path = common.write(
        "explanations",
        {
            "what": "PARSRec's explanations against the planted truth of synthetic.txt, test sessions",
            "config": recommender.model.config.to_dict(),
            "options": recommender.metadata.get("options"),
            "training": recommender.metadata.get("training"),
            **found,
            **common.provenance(),
        },
    )
    print(path.read_text())


if __name__ == "__main__":
    main()
