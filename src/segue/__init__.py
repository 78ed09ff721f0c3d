"""Sequential recommendation: from a log of interactions to recommendations with reasons.

The names below are what a user needs. Each is imported when it is first used, so that `import segue` and
`segue --help` answer at once; nothing heavy (torch, polars, matplotlib) is loaded before it is needed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segue.data.dataset import Dataset
    from segue.data.item_histories import ItemHistories
    from segue.data.planted import Planted
    from segue.data.prepare import prepare
    from segue.data.reading import Log, read
    from segue.data.session_file import write_session_file
    from segue.data.sessions import Sessions
    from segue.data.simulate import Simulation, simulate
    from segue.data.splits import (
        Holdout,
        Split,
        hold_out_users,
        last_session_out,
        leave_last_n,
        leave_last_out,
        random_rows,
        time_cut,
    )
    from segue.data.statistics import describe
    from segue.data.vocabulary import Vocabulary
    from segue.errors import SegueError
    from segue.evaluation.compare import compare
    from segue.evaluation.evaluate import evaluate
    from segue.evaluation.lists import evaluate_lists
    from segue.evaluation.ratings import evaluate_ratings
    from segue.evaluation.sessions import evaluate_sessions
    from segue.inference.loading import load
    from segue.inference.recommender import Recommender
    from segue.models.arerec import ARERec
    from segue.models.markov import Markov
    from segue.models.matrix_factorization import MatrixFactorization
    from segue.models.parsrec import PARSRec
    from segue.models.popularity import Popularity, RecentPopularity
    from segue.models.rating_bias import GlobalMean, RatingBias
    from segue.models.sasrec import SASRec
    from segue.models.ssept import SSEPT
    from segue.training.config import Training
    from segue.training.fit import fit

    __version__: str

_HOMES = {
    "ARERec": "segue.models.arerec",
    "Dataset": "segue.data.dataset",
    "GlobalMean": "segue.models.rating_bias",
    "Holdout": "segue.data.splits",
    "ItemHistories": "segue.data.item_histories",
    "Log": "segue.data.reading",
    "Markov": "segue.models.markov",
    "MatrixFactorization": "segue.models.matrix_factorization",
    "PARSRec": "segue.models.parsrec",
    "Planted": "segue.data.planted",
    "Popularity": "segue.models.popularity",
    "RatingBias": "segue.models.rating_bias",
    "RecentPopularity": "segue.models.popularity",
    "Recommender": "segue.inference.recommender",
    "SASRec": "segue.models.sasrec",
    "SSEPT": "segue.models.ssept",
    "SegueError": "segue.errors",
    "Sessions": "segue.data.sessions",
    "Simulation": "segue.data.simulate",
    "Split": "segue.data.splits",
    "Training": "segue.training.config",
    "Vocabulary": "segue.data.vocabulary",
    "compare": "segue.evaluation.compare",
    "describe": "segue.data.statistics",
    "evaluate": "segue.evaluation.evaluate",
    "evaluate_lists": "segue.evaluation.lists",
    "evaluate_ratings": "segue.evaluation.ratings",
    "evaluate_sessions": "segue.evaluation.sessions",
    "fit": "segue.training.fit",
    "hold_out_users": "segue.data.splits",
    "last_session_out": "segue.data.splits",
    "leave_last_n": "segue.data.splits",
    "leave_last_out": "segue.data.splits",
    "load": "segue.inference.loading",
    "prepare": "segue.data.prepare",
    "random_rows": "segue.data.splits",
    "read": "segue.data.reading",
    "simulate": "segue.data.simulate",
    "time_cut": "segue.data.splits",
    "write_session_file": "segue.data.session_file",
}

# Static, as type checkers and editors want it; a test holds it equal to _HOMES.
__all__ = [
    "SSEPT",
    "ARERec",
    "Dataset",
    "GlobalMean",
    "Holdout",
    "ItemHistories",
    "Log",
    "Markov",
    "MatrixFactorization",
    "PARSRec",
    "Planted",
    "Popularity",
    "RatingBias",
    "RecentPopularity",
    "Recommender",
    "SASRec",
    "SegueError",
    "Sessions",
    "Simulation",
    "Split",
    "Training",
    "Vocabulary",
    "__version__",
    "compare",
    "describe",
    "evaluate",
    "evaluate_lists",
    "evaluate_ratings",
    "evaluate_sessions",
    "fit",
    "hold_out_users",
    "last_session_out",
    "leave_last_n",
    "leave_last_out",
    "load",
    "prepare",
    "random_rows",
    "read",
    "simulate",
    "time_cut",
    "write_session_file",
]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        value: object = version("segue")
    elif name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'segue' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
