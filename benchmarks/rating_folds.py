"""RMSE on the five published folds u1 to u5 of MovieLens 100K, beside the Bayesian factorization machine of myFM.

    pip install myfm "setuptools<81"
    python benchmarks/rating_folds.py --fold u1 u2 u3 u4 u5

The test ratings of a fold are those of its published file, and all others are for training; nothing is held out for
validation. The settings were chosen on a random tenth of the training ratings of u1 (seed 5, `--on validation`), before
any test was looked at with them. No features of users and films are read, and no times.

myFM is given the same information: user and film, the films that a user rated in training and the users who rated the
film in training, each divided by the square root of their number (Rendle, Zhang & Koren 2019). It has as many
iterations as segue has draws. Its rank is chosen on the same tenth (`--on validation --model myfm --rank 8 10 …`).
Results go to results/rating_folds.json.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import common
import numpy as np
import numpy.typing as npt
import polars as pl
import torch

import segue
from segue.models.base import CountingModel, ModelConfig
from segue.models.ratings import RatingModel

DEFAULTS = segue.BayesianFactorization()
MODELS: dict[str, ModelConfig] = {
    "rating-bias": segue.RatingBias(),
    "matrix-factorization": segue.MatrixFactorization(),
    "bayesian-factorization, explicit": segue.BayesianFactorization(implicit=False),
    "bayesian-factorization": DEFAULTS,
}
RANK = 8
COLUMNS = ["user", "item", "rating", "time"]
Floats = npt.NDArray[np.float64]


def read(name: str) -> pl.DataFrame:
    """Ratings of a file of MovieLens 100K."""
    path = common.data_folder() / "ml-100k" / name
    return pl.read_csv(path, separator="\t", has_header=False, new_columns=COLUMNS)


def parts(fold: str, on: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Training ratings, and those that are predicted."""
    test = read(f"folds/{fold}.test")
    train = read("u.data").join(test, on=["user", "item"], how="anti", maintain_order="left")
    if on == "test":
        return train, test
    drawn = np.random.default_rng(5).random(len(train)) < 0.1
    return train.filter(~drawn), train.filter(drawn)


def segue_predictions(
    config: ModelConfig, train: pl.DataFrame, test: pl.DataFrame, seed: int
) -> tuple[Floats, Floats | None]:
    """Expected ratings (n,), and probabilities of the levels (n, levels) if the model has them."""
    dataset = segue.prepare(train)
    torch.manual_seed(seed)
    model = config.resolved(dataset).build(dataset.n_users, dataset.n_items)
    assert isinstance(model, RatingModel)
    assert isinstance(model, CountingModel)
    model.count(dataset)
    users, items = (
        torch.from_numpy(np.asarray(vocabulary.encode(test[column].to_list()), dtype=np.int64))
        for vocabulary, column in ((dataset.users, "user"), (dataset.catalogue, "item"))
    )
    with torch.inference_mode():
        rated = model.rate(users, items, torch.zeros_like(users))
    shares = None if rated.probabilities is None else rated.probabilities.double().numpy()
    return rated.expected.double().numpy(), shares


def myfm_predictions(rank: int, train: pl.DataFrame, test: pl.DataFrame, seed: int) -> Floats:
    """Expected ratings (n,) of myFM."""
    import myfm
    import scipy.sparse as sp

    sizes = read("u.data")["user"].max() + 1, read("u.data")["item"].max() + 1  # type: ignore[operator]
    pairs = train["user"].to_numpy(), train["item"].to_numpy()
    given = sp.csr_matrix((np.ones(len(train)), pairs), shape=sizes)
    blocks = []
    for matrix in (given, given.T.tocsr()):
        counts = np.maximum(np.asarray(matrix.sum(1))[:, 0], 1)
        blocks.append(sp.hstack([sp.identity(matrix.shape[0]), sp.diags(counts**-0.5) @ matrix], format="csr"))

    def relations(frame: pl.DataFrame) -> list[Any]:
        codes = frame["user"].to_numpy(), frame["item"].to_numpy()
        return [myfm.RelationBlock(code, block) for code, block in zip(codes, blocks, strict=True)]

    groups = [size for block in ((0, 1), (1, 0)) for size in (sizes[block[0]], sizes[block[1]])]
    model = myfm.MyFMRegressor(rank=rank, random_seed=seed)
    iterations = DEFAULTS.burn_in + DEFAULTS.draws
    model.fit(None, train["rating"].to_numpy(), X_rel=relations(train), group_shapes=groups, n_iter=iterations,
              n_kept_samples=DEFAULTS.draws)  # fmt: skip
    predictions: Floats = model.predict(None, relations(test))
    return predictions


def coverage(shares: Floats, ratings: Floats) -> dict[str, float]:
    """Share of ratings within the central interval of the predicted distribution, for three sizes of the interval.

    A level is a step of the distribution, so a rating has a random place within the step (a fixed seed draws it).
    """
    level, rows = np.round(ratings).astype(int) - 1, np.arange(len(ratings))
    below = np.cumsum(shares, axis=1) - shares
    place = below[rows, level] + np.random.default_rng(0).random(len(rows)) * shares[rows, level]
    return {f"{share:.0%}": round(float(np.mean(np.abs(place - 0.5) <= share / 2)), 4) for share in (0.5, 0.8, 0.9)}


def run(name: str, fold: str, on: str, seed: int, rank: int) -> dict[str, Any]:
    """RMSE of one model on one fold."""
    train, test = parts(fold, on)
    begun, cpu = time.perf_counter(), time.process_time()
    shares = None
    if name == "myfm":
        expected = myfm_predictions(rank, train, test, seed)
    else:
        expected, shares = segue_predictions(MODELS[name], train, test, seed)
    seconds, cpu_seconds = time.perf_counter() - begun, time.process_time() - cpu
    ratings = test["rating"].to_numpy().astype(np.float64)
    inside = np.clip(expected, 1, 5)
    found: dict[str, Any] = {
        "model": name,
        "fold": fold,
        "seed": seed,
        "config": {"rank": rank} if name == "myfm" else MODELS[name].to_dict(),
        on: {
            "rmse": round(float(np.sqrt(np.mean((expected - ratings) ** 2))), 4),
            "rmse within the scale": round(float(np.sqrt(np.mean((inside - ratings) ** 2))), 4),
        },
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "ratings": len(test),
    }
    if shares is not None:
        level = np.round(ratings).astype(int) - 1
        found[on]["log_loss"] = round(float(-np.log(shares[np.arange(len(level)), level]).mean()), 4)
        found["coverage"] = coverage(shares, ratings)
    return found


def main() -> None:
    """Run the requested models and folds; each run is saved when it ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fold", nargs="+", default=["u1", "u2", "u3", "u4", "u5"])
    parser.add_argument("--model", nargs="+", choices=[*MODELS, "myfm"], default=[*MODELS, "myfm"])
    parser.add_argument("--on", choices=("test", "validation"), default="test")
    parser.add_argument("--rank", nargs="+", type=int, default=[RANK], help="of myFM")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for fold in arguments.fold:
        for name in arguments.model:
            for rank in arguments.rank if name == "myfm" else [RANK]:
                found = run(name, fold, arguments.on, arguments.seed, rank)
                print({key: value for key, value in found.items() if key != "config"}, rank, flush=True)
                if arguments.on == "test":
                    packages = ("torch", "numpy", "myfm") if name == "myfm" else ("torch", "numpy")
                    result = found | common.provenance() | {"versions": common.versions(*packages)}
                    what = "MovieLens 100K, published folds u1 to u5, ids only"
                    common.add_run("rating_folds", what, result, key=("model", "fold", "seed"))


if __name__ == "__main__":
    main()
