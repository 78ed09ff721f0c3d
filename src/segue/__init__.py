"""Sequential recommendation: from a log of interactions to recommendations with reasons.

The names in `__all__` are the public interface. Each is imported when it is first used, so that `import segue` and
`segue --help` answer at once; torch, polars and matplotlib are loaded when they are needed.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as typing has it; typing itself takes longer to load than the rest of this file
if TYPE_CHECKING:
    from segue.data.dataset import Dataset
    from segue.data.item_histories import ItemHistories
    from segue.data.item_shards import ItemShard
    from segue.data.preparing.embedding import embed
    from segue.data.preparing.prepare import prepare
    from segue.data.preparing.shards import prepare_shards
    from segue.data.reading.read import Log, read
    from segue.data.sessions import Sessions
    from segue.data.shards import Shards
    from segue.data.simulation.planted import Planted
    from segue.data.simulation.session_file import write_session_file
    from segue.data.simulation.simulate import Simulation, simulate
    from segue.data.splits.by_item import cold_items
    from segue.data.splits.by_user import (
        Holdout,
        Split,
        hold_out_users,
        last_session_out,
        leave_last_n,
        leave_last_out,
        random_rows,
        time_cut,
    )
    from segue.data.splits.given import given_split
    from segue.data.statistics.describe import describe
    from segue.data.vocabulary import Vocabulary
    from segue.engines.engine import Engine
    from segue.errors import SegueError
    from segue.evaluation.compare import compare
    from segue.evaluation.lists import evaluate_lists
    from segue.evaluation.results import Results
    from segue.evaluation.tasks.baskets import evaluate_baskets
    from segue.evaluation.tasks.next_items import evaluate
    from segue.evaluation.tasks.ratings import evaluate_ratings
    from segue.evaluation.tasks.sessions import evaluate_sessions
    from segue.inference.asking.everyone import EVERYONE
    from segue.inference.index import ItemIndex
    from segue.inference.loading import load
    from segue.inference.onnx.reading import OnnxRecommender
    from segue.inference.recommender import Recommender
    from segue.models.arerec.arerec import ARERec
    from segue.models.base import CountingModel, ModelConfig, TrainableModel
    from segue.models.bayesian_factorization import BayesianFactorization
    from segue.models.bert4rec import BERT4Rec
    from segue.models.category_popularity import CategoryPopularity
    from segue.models.content_neighbours import ContentNeighbours
    from segue.models.ease import EASE
    from segue.models.gru4rec import GRU4Rec
    from segue.models.hstu import HSTU
    from segue.models.item_knn import ItemKNN
    from segue.models.lrurec import LRURec
    from segue.models.markov import Markov
    from segue.models.matrix_factorization import MatrixFactorization
    from segue.models.parsrec.parsrec import PARSRec
    from segue.models.personal_frequency import PersonalFrequency
    from segue.models.popularity import Popularity, RecentPopularity
    from segue.models.rating_bias import GlobalMean, RatingBias
    from segue.models.registry import register
    from segue.models.sasrec import SASRec
    from segue.models.ssept import SSEPT
    from segue.models.tifu_knn import TIFUKNN
    from segue.models.up_cf import UPCF
    from segue.models.vsknn import VSKNN
    from segue.models.vstan import VSTAN
    from segue.training.blending import blend
    from segue.training.config import Training
    from segue.training.experiment import experiment
    from segue.training.fit import fit
    from segue.training.refreshing import refresh
    from segue.training.resuming import resume
    from segue.training.tuning import tune
    from segue.transfers import download, upload

    __version__: str

_HOMES = {
    "ARERec": "segue.models.arerec.arerec",
    "BERT4Rec": "segue.models.bert4rec",
    "BayesianFactorization": "segue.models.bayesian_factorization",
    "CategoryPopularity": "segue.models.category_popularity",
    "ContentNeighbours": "segue.models.content_neighbours",
    "CountingModel": "segue.models.base",
    "Dataset": "segue.data.dataset",
    "EASE": "segue.models.ease",
    "EVERYONE": "segue.inference.asking.everyone",
    "Engine": "segue.engines.engine",
    "GRU4Rec": "segue.models.gru4rec",
    "GlobalMean": "segue.models.rating_bias",
    "HSTU": "segue.models.hstu",
    "Holdout": "segue.data.splits.by_user",
    "ItemHistories": "segue.data.item_histories",
    "ItemShard": "segue.data.item_shards",
    "ItemIndex": "segue.inference.index",
    "ItemKNN": "segue.models.item_knn",
    "LRURec": "segue.models.lrurec",
    "Log": "segue.data.reading.read",
    "Markov": "segue.models.markov",
    "MatrixFactorization": "segue.models.matrix_factorization",
    "ModelConfig": "segue.models.base",
    "OnnxRecommender": "segue.inference.onnx.reading",
    "PARSRec": "segue.models.parsrec.parsrec",
    "PersonalFrequency": "segue.models.personal_frequency",
    "Planted": "segue.data.simulation.planted",
    "Popularity": "segue.models.popularity",
    "RatingBias": "segue.models.rating_bias",
    "RecentPopularity": "segue.models.popularity",
    "Recommender": "segue.inference.recommender",
    "Results": "segue.evaluation.results",
    "SASRec": "segue.models.sasrec",
    "SSEPT": "segue.models.ssept",
    "SegueError": "segue.errors",
    "Sessions": "segue.data.sessions",
    "Shards": "segue.data.shards",
    "Simulation": "segue.data.simulation.simulate",
    "Split": "segue.data.splits.by_user",
    "TIFUKNN": "segue.models.tifu_knn",
    "TrainableModel": "segue.models.base",
    "Training": "segue.training.config",
    "UPCF": "segue.models.up_cf",
    "VSKNN": "segue.models.vsknn",
    "VSTAN": "segue.models.vstan",
    "Vocabulary": "segue.data.vocabulary",
    "blend": "segue.training.blending",
    "cold_items": "segue.data.splits.by_item",
    "compare": "segue.evaluation.compare",
    "describe": "segue.data.statistics.describe",
    "download": "segue.transfers",
    "embed": "segue.data.preparing.embedding",
    "evaluate": "segue.evaluation.tasks.next_items",
    "evaluate_baskets": "segue.evaluation.tasks.baskets",
    "evaluate_lists": "segue.evaluation.lists",
    "evaluate_ratings": "segue.evaluation.tasks.ratings",
    "evaluate_sessions": "segue.evaluation.tasks.sessions",
    "experiment": "segue.training.experiment",
    "fit": "segue.training.fit",
    "given_split": "segue.data.splits.given",
    "hold_out_users": "segue.data.splits.by_user",
    "last_session_out": "segue.data.splits.by_user",
    "leave_last_n": "segue.data.splits.by_user",
    "leave_last_out": "segue.data.splits.by_user",
    "load": "segue.inference.loading",
    "prepare": "segue.data.preparing.prepare",
    "prepare_shards": "segue.data.preparing.shards",
    "random_rows": "segue.data.splits.by_user",
    "read": "segue.data.reading.read",
    "refresh": "segue.training.refreshing",
    "register": "segue.models.registry",
    "resume": "segue.training.resuming",
    "simulate": "segue.data.simulation.simulate",
    "split_for": "segue.evaluation.other_data",
    "time_cut": "segue.data.splits.by_user",
    "tune": "segue.training.tuning",
    "upload": "segue.transfers",
    "write_session_file": "segue.data.simulation.session_file",
}

# Written out for type checkers and editors; a test holds it equal to _HOMES.
__all__ = [
    "EASE",
    "EVERYONE",
    "HSTU",
    "SSEPT",
    "TIFUKNN",
    "UPCF",
    "VSKNN",
    "VSTAN",
    "ARERec",
    "BERT4Rec",
    "BayesianFactorization",
    "CategoryPopularity",
    "ContentNeighbours",
    "CountingModel",
    "Dataset",
    "Engine",
    "GRU4Rec",
    "GlobalMean",
    "Holdout",
    "ItemHistories",
    "ItemIndex",
    "ItemKNN",
    "ItemShard",
    "LRURec",
    "Log",
    "Markov",
    "MatrixFactorization",
    "ModelConfig",
    "OnnxRecommender",
    "PARSRec",
    "PersonalFrequency",
    "Planted",
    "Popularity",
    "RatingBias",
    "RecentPopularity",
    "Recommender",
    "Results",
    "SASRec",
    "SegueError",
    "Sessions",
    "Shards",
    "Simulation",
    "Split",
    "TrainableModel",
    "Training",
    "Vocabulary",
    "__version__",
    "blend",
    "cold_items",
    "compare",
    "describe",
    "download",
    "embed",
    "evaluate",
    "evaluate_baskets",
    "evaluate_lists",
    "evaluate_ratings",
    "evaluate_sessions",
    "experiment",
    "fit",
    "given_split",
    "hold_out_users",
    "last_session_out",
    "leave_last_n",
    "leave_last_out",
    "load",
    "prepare",
    "prepare_shards",
    "random_rows",
    "read",
    "refresh",
    "register",
    "resume",
    "simulate",
    "split_for",
    "time_cut",
    "tune",
    "upload",
    "write_session_file",
]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        value: object = version("segue")
    elif name in _HOMES:
        import importlib

        value = getattr(importlib.import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'segue' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
