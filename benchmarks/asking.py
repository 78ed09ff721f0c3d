"""Time of one user's list against the size of the catalogue: `Recommender.recommend` beside the bare operations.

    python benchmarks/asking.py

The model is an untrained `SASRec()` over simulated catalogues of 25 thousand, 300 thousand and a million items. The
user has 50 items in the history; k is 10, and seen items are left out. In each round `recommend` and the bare
operations answer one after the other on the same weights. A ratio is that of the medians over all rounds. The bare
operations are those that no library can leave out: the encoder on a ready tensor, one product with the prepared item
vectors, and `topk`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import common
import numpy as np
import torch

import segue
from segue.data.dataset import Dataset
from segue.data.vocabulary import Vocabulary
from segue.inference.recommender import Recommender

CATALOGUES = (25_000, 300_000, 1_000_000)
USERS, LENGTH, K = 1_000, 50, 10
ROUNDS = {25_000: 300, 300_000: 60, 1_000_000: 30}


def made(n_items: int) -> Dataset:
    """Dataset of users with `LENGTH` random items each."""
    rng = np.random.default_rng(0)
    items = rng.integers(1, n_items + 1, USERS * LENGTH).astype(np.int32)
    offsets = np.concatenate([[0], np.arange(USERS + 1) * LENGTH])
    return Dataset(items, offsets, Vocabulary(range(1, USERS + 1)), Vocabulary(range(1, n_items + 1)))


def seconds(ask: Callable[[int], object], user: int) -> float:
    """Seconds of one answer."""
    begun = time.perf_counter()
    ask(user)
    return time.perf_counter() - begun


def measured(n_items: int) -> dict[str, float]:
    """Medians of both ways in milliseconds, and their ratio."""
    data = made(n_items)
    torch.manual_seed(0)
    model = segue.SASRec().build(data.n_users, data.n_items)
    answers = Recommender(model, data)
    scorer = answers.scorer
    table = scorer.item_vectors()
    assert table is not None
    inputs = {user: scorer.model.inputs(data.histories(np.array([user]))) for user in range(1, USERS + 1)}

    def bare(user: int) -> object:
        with torch.inference_mode():
            return torch.mm(scorer.model.encode(inputs[user]), table.T).topk(K)

    def asked(user: int) -> object:
        return answers.recommend(user, k=K)

    taken: dict[str, list[float]] = {"bare": [], "recommend": []}
    for number in range(-5, ROUNDS[n_items]):
        user = number % USERS + 1
        for name, ask in (("bare", bare), ("recommend", asked)):
            took = seconds(ask, user)
            if number >= 0:
                taken[name].append(took)
    medians = {name: statistics.median(values) for name, values in taken.items()}
    return {
        "items": n_items,
        "rounds": ROUNDS[n_items],
        **{f"{name}_ms": round(1e3 * value, 3) for name, value in medians.items()},
        "ratio": round(medians["recommend"] / medians["bare"], 2),
    }


def main() -> None:
    """Measure every catalogue and write the figures."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    result = {
        "what": "one user's list by Recommender.recommend, over the encoder, the product and the top-k alone",
        "catalogues": {f"{n_items:,}": measured(n_items) for n_items in CATALOGUES},
        "threads": torch.get_num_threads(),
        **common.provenance(),
    }
    print(common.write("asking", result).read_text())


if __name__ == "__main__":
    main()
