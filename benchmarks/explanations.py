"""Agreement of PARSRec's explanations with the planted structure: attention and leave-one-out.

    python benchmarks/explanations.py --products 2 5            # simulates a small shop of each size, trains, measures
    python benchmarks/explanations.py --run runs/parsrec        # a run on synthetic.txt with the split last-session-out

The shops are the simulator's (`segue.simulate`): 1,024 users, 100 sessions each, 20 categories with this many products.
In PARSRec's `synthetic.txt` each category has 100 products, with the same planted structure. The sessions of the test
part are measured step by step:

- the category-by-category matrix of each group (`segue.evaluation.explanations.category_maps`), made symmetric,
  against the planted covariances: Spearman over the 22 pairs that are not zero in either group (the same in both),
  Pearson over all 190, and the sign of the difference in the pairs on which the groups differ;
- the area under the ROC of a linear probe of the user vectors for the group, five-fold;
- deletion: the drop of the log-probability of the best recommendation without its strongest reason, relative to the
  drop without a random item.

Co-occurrence in the sessions of the training part is the ceiling. The result goes to results/explanations.json, the
pictures of the smallest shop to docs/images.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import common
import numpy as np
import polars as pl

import segue
from segue.data.simulation.planted import Market, plant
from segue.data.splits.holdouts import Split
from segue.data.splits.registry import split_by
from segue.evaluation.explanations.agreement import Agreement, agreement, cooccurrence, separation
from segue.evaluation.explanations.category_maps import category_maps
from segue.evaluation.explanations.deletion import Deletion, Method, deletion
from segue.evaluation.explanations.heatmaps import draw_maps, draw_reasons
from segue.evaluation.explanations.labels import Labels, planted_labels

IMAGES = Path(__file__).parent.parent / "docs" / "images"
MARKET = Market(users=1024, sessions=100, products=100, price_effect=0.1, longest=10)
"""Market of `synthetic.txt`: its categories and groups."""
CONFIG = segue.PARSRec(user_width=32, item_width=32, dropout=0.0)
TRAINING = segue.Training(
    epochs=32,
    batch_size=512,
    learning_rate=8e-3,
    schedule="linear",
    beta2=0.999,
    clip_norm=30.0,
    metric="sess_prec@10",
    patience=None,
)
METHODS: tuple[Method, ...] = ("leave-one-out", "attention")


def small_shop(products: int) -> tuple[segue.Recommender, segue.Planted]:
    """PARSRec trained on a shop with `products` in each category, and the truth.

    Validation sessions choose the epoch.
    """
    simulation = segue.simulate(1024, 100, products=products, price_effect=0.1, longest=10)
    return segue.fit(CONFIG, segue.last_session_out(simulation.dataset()), training=TRAINING), simulation.truth


def measure(recommender: segue.Recommender, truth: segue.Planted, pictures: bool) -> dict[str, Any]:
    """All figures of the report, and the pictures on request."""
    split = split_by(recommender.dataset, recommender.metadata["split"])
    categories, groups = planted_labels(truth, recommender.dataset)
    maps = category_maps(recommender.model, split.test, categories, groups)
    matrices = {"leave-one-out": maps.effects, "attention": maps.attention}
    if pictures:
        draw_maps(IMAGES / "explanations-effects.png", maps)
        draw_maps(IMAGES / "explanations-attention.png", maps, "attention")
        draw_example(recommender, split, categories)
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
    """Vectors of the users with a group, and their groups."""
    users = np.flatnonzero(groups.codes >= 0)
    vectors = recommender.model.users.weight.detach().cpu().double().numpy()
    return vectors[users], groups.codes[users]


def draw_example(recommender: segue.Recommender, split: Split, categories: Labels) -> None:
    """Draw the explanation of the first user's test session without its last item; item names are category and id."""
    dataset, test = recommender.dataset, split.test
    user = dataset.users.decode(test.users[:1])[0]
    session = dataset.items[test.history_ends[0] : test.target_ends[0]]
    basket = dataset.catalogue.decode(session[:-1]).to_list()
    lists = recommender.recommend(user, basket=basket, k=8)
    why = recommender.explain(user, lists["item"], basket=basket, by=["basket", "user"], measure="log-probability")
    looked = recommender.attention(user, basket=basket)
    ids = dataset.catalogue.ids
    names = {
        item: f"{categories.names[code]} {item}" for item, code in zip(ids, categories.codes[1:].tolist(), strict=True)
    }
    why, looked = (
        frame.with_columns(
            pl.col(column).replace_strict(names, default=None, return_dtype=pl.String)
            for column in ("item", "because")
            if column in frame.columns
        )
        for frame in (why, looked)
    )
    draw_reasons(IMAGES / "explanations-one.png", why, looked)


def rounded(found: Agreement) -> dict[str, Any]:
    """Agreement as plain data."""
    return {
        "rank": [round(value, 4) for value in found.rank],
        "linear": [round(value, 4) for value in found.linear],
        "signs": found.signs,
        "differing": found.differing,
    }


def costs(found: Deletion) -> dict[str, Any]:
    """Deletion as plain data."""
    return {name: round(value, 4) for name, value in asdict(found).items()} | {
        "ratios": [round(value, 2) if np.isfinite(value) else None for value in found.ratios]
    }


def add(recommender: segue.Recommender, truth: segue.Planted, data: str, pictures: bool = False) -> None:
    """Measure a run and add it to the results, replacing an earlier one on the same data."""
    items = recommender.dataset.n_items
    run = {
        "data": f"{data}, {items:,} items",
        "items": items,
        "config": recommender.model.config.to_dict(),
        "options": recommender.metadata.get("options"),
        "training": recommender.metadata.get("training"),
        **measure(recommender, truth, pictures),
        **common.provenance(),
    }
    path = common.RESULTS / "explanations.json"
    runs = json.loads(path.read_text())["runs"] if path.exists() else []
    runs = sorted([*(other for other in runs if other["data"] != run["data"]), run], key=lambda one: int(one["items"]))
    common.write("explanations", {"what": "PARSRec's explanations against the planted truth", "runs": runs})
    print(json.dumps(run, indent=2))


def main() -> None:
    """Measure a run on synthetic.txt, or train on small shops and measure those."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", help="a PARSRec trained on synthetic.txt with the split last-session-out")
    parser.add_argument(
        "--products", nargs="+", type=int, default=[2, 5], help="in each category, if --run is not given"
    )
    arguments = parser.parse_args()
    if arguments.run:
        add(segue.load(arguments.run), plant(MARKET), "synthetic.txt")
        return
    for products in arguments.products:
        add(*small_shop(products), "Small shop", pictures=products == min(arguments.products))


if __name__ == "__main__":
    main()
