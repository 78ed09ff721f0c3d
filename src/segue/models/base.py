"""Base classes of all models: a frozen config, and a module that makes queries and scores from histories.

To add a model, write one file with a config (a `ModelConfig`) and a module (a `CountingModel` or a `TrainableModel`),
and add its name to `registry.py`. The trainer, the evaluation, the Recommender and the command line then work with it.
"""

from __future__ import annotations

import copy
import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from itertools import chain
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from segue.data.dataset import Dataset
from segue.data.histories import Histories
from segue.errors import ConfigError
from segue.models.scores import ItemScores
from segue.settings import Settings

M = TypeVar("M", bound=nn.Module)


@dataclasses.dataclass(frozen=True)
class ModelConfig(Settings, ABC):
    """Settings of a model: frozen, checked, and the same in Python, YAML and on the command line.

    The type of a field gives its range (`segue.settings`). Rules on several fields belong in `check`.

    Examples
    --------
    >>> settings = segue.Markov(steps=2).to_dict()
    >>> settings["name"], settings["steps"]
    ('markov', 2)
    >>> segue.Markov.from_dict(settings) == segue.Markov(steps=2)
    True
    """

    name: ClassVar[str]
    task: ClassVar[str] = "next-items"
    """Name of the task of the model: "next-items", "sessions" or "ratings". The task has the defaults."""
    formerly: ClassVar[Mapping[str, Any]] = {}
    """Values to assume for settings missing from older saved files."""
    published_training: ClassVar[Mapping[str, Any]] = {}
    """Options of the training that belong to `as_published`."""
    may_change_on_start: ClassVar[frozenset[str]] = frozenset(
        {"dropout", "loss", "negatives", "calibration", "logq", "in_batch", "windows", "embedding_l2"}
    )
    """Settings that may differ from those of the model whose weights a training starts from: the weights mean the same
    with any value."""

    @classmethod
    def as_published(cls) -> Self:
        """Return the settings of the paper or of its program.

        Raises
        ------
        ConfigError
            The model has none.
        """
        raise ConfigError(f"{cls.name} has no published setting: give its options one by one.")

    def resolved(self, dataset: Dataset) -> Self:
        """Return the settings, with those that depend on the data filled in from the visible interactions."""
        return self

    def for_division(self) -> Self:
        """Return the settings without choices from the data for which the tables would have to be whole."""
        return self

    def why_whole(self) -> str | None:
        """Reason for which the tables of this model cannot be divided over processes; None if they can be.

        Called on resolved settings. A model can divide its tables if it reads their rows by calling them alone.
        """
        return f"{self.name} reads its tables as a whole"

    @abstractmethod
    def build(self, n_users: int, n_items: int) -> Model:
        """Return a new module for this many users and items, with weights from torch's global generator."""

    def to_dict(self) -> dict[str, Any]:
        """Return the settings and the `name` as plain data; for a model from outside of segue, also the `class`."""
        own = {} if type(self).__module__.startswith("segue.") else {"class": self.import_path()}
        return {"name": self.name, **own, **super().to_dict()}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Self:
        """Return the config of a result of `to_dict`; an unknown setting raises a ConfigError."""
        return super().from_dict({key: value for key, value in settings.items() if key not in ("name", "class")})

    @classmethod
    def import_path(cls) -> str:
        """Return the path of the class, as "package.module:Class"."""
        return f"{cls.__module__}:{cls.__qualname__}"


class Attention(NamedTuple):
    """Attention of the queries of n histories over their items.

    Attributes
    ----------
    weights
        (n, blocks, heads, width) float32 weight of the item at `places` in each head of each block. The weights of a
        history sum to 1, or to 0 if it has no items.
    places
        (n, width) int64 positions in `Histories.items`; -1 behind the end of a history.
    """

    weights: Tensor
    places: npt.NDArray[np.int64]


Side = Literal["users", "items"]
"""The two kinds of codes."""


class CodeRows(NamedTuple):
    """Tensor of a model whose rows are codes.

    Attributes
    ----------
    side
        "users" or "items": the codes.
    fill
        Row of a new id: the "mean" of the rows of ids with interactions, "zero", or that of code 0, the "first".
    """

    side: Side
    fill: Literal["mean", "zero", "first"] = "mean"


class Vocabularies(NamedTuple):
    """Fingerprints of the vocabularies of users and items."""

    users: str
    items: str

    @classmethod
    def of(cls, dataset: Dataset) -> Vocabularies:
        """The fingerprints of a Dataset."""
        return cls(dataset.users.fingerprint, dataset.catalogue.fingerprint)


class Model(nn.Module, ABC):
    """Interface between a model and the Recommender or the evaluation. It uses codes, never raw ids.

    Parameters
    ----------
    config
        Settings of the model.
    n_users, n_items
        Sizes of the vocabularies. Codes start at 1; code 0 is an unknown user or padding.
    """

    max_history: int | None = None
    """Number of newest items of a history that the queries depend on; None = all."""

    code_tables: ClassVar[Mapping[str, Side]] = {
        "users": "users",
        "items": "items",
        "repeats.biases": "items",
    }
    """Modules with a row for each code, by name, and the codes of their rows."""

    stores_histories: ClassVar[bool] = False
    """True if the tensors of the model hold interactions of single users."""

    personal: bool = False
    """True if the queries depend on the user, not only on the history."""

    needs_history: bool = True
    """True if the model needs a history. False if it has scores even for an unknown user without history."""

    counting_scores: bool = False
    """True if scores are counts or shares, not below 0; else they are logits. A blend makes probabilities of them."""

    repeats_together: bool = False
    """True if reasons name an item of the history once, with all of its occurrences, because the model counts them."""

    dense_queries: bool = False
    """True if a query is as long as the catalogue. Few are then held at once, and histories are not padded."""

    vocabularies: Vocabularies | None = None
    """Fingerprints of the vocabularies that the model was fitted with; None until a Recommender is made of it."""

    reads_content: bool = False
    """True if the model scores items that nobody has taken by their content. Such items are then recommended, too."""

    on_disk: bool = False
    """True if tables of the model are memory-mapped files, because they may be larger than the memory of a process."""

    cold: npt.NDArray[np.int64] | None = None
    """Codes (m,) of the items that the model cannot score: nobody has taken them, and it does not read their content.

    They are in no list and no ranking. An item without a row in the item table has no content. None until the model
    meets its Dataset (`meet`).
    """

    def __init__(self, config: ModelConfig, n_users: int, n_items: int) -> None:
        super().__init__()
        self.config = config
        self.n_users = n_users
        self.n_items = n_items

    @abstractmethod
    def inputs(self, histories: Histories) -> Any:
        """Return the inputs of `encode` for n histories, as a named tuple of tensors on the CPU.

        The method changes nothing and reads no weight. Histories are not empty if the model `needs_history`.
        """

    @abstractmethod
    def encode(self, inputs: Any) -> Tensor:
        """Return the queries (n, …), from which items are scored, for a result of `inputs`.

        The method is a function of tensors and weights without data-dependent Python, so that `torch.export` can export
        it. A model with steps that depend on the lengths of baskets says so.
        """

    @abstractmethod
    def scores(self) -> ItemScores:
        """Return the scores of items for the current weights. Later changes of the weights may not reach them."""

    def item_vectors(self) -> Tensor | None:
        """Vectors (n_items + 1, width), whose cosine is the similarity of two items; None if the model has none."""
        return None

    def attention(self, histories: Histories) -> Attention | None:
        """Attention of the queries of n histories over their items; None if the model has no attention."""
        return None

    def prepare(self, dataset: Dataset) -> None:
        """Store facts of the visible interactions that the model needs: the usual gap, the known users, ….

        It is called once, before `examples`. Apart from it, only the trainer and `count` change the model.
        """

    def code_rows(self) -> Mapping[str, CodeRows]:
        """Tensors of the state, by name, whose rows are codes of users or items; all others fit any catalogue.

        They are those of the modules in `code_tables` that have the size for it. A model with other ones names them.
        """
        sizes = {"items": self.n_items + 1, "users": self.n_users + 1}
        rows = {}
        for name, tensor in self.state_dict().items():
            side = next((side for table, side in self.code_tables.items() if f"{name}.".startswith(f"{table}.")), None)
            if side is not None and tensor.ndim and len(tensor) == sizes[side]:
                rows[name] = CodeRows(side, "mean" if tensor.is_floating_point() else "zero")
        return rows

    def learned_buffers(self) -> set[str]:
        """Names of buffers that were learned, and that a training may start from; parameters always are."""
        return set()

    def drawn_on_start(self) -> set[str]:
        """Names of learned tensors that a training which starts from a former model draws anew."""
        return set()

    def grow_from(self, former: Self) -> set[str]:
        """Take over what `code_rows` cannot tell from a model for fewer users and items; return the tensors' names."""
        return set()

    def forget_users(self, users: npt.NDArray[np.int64]) -> None:
        """Remove what is stored of these user codes (n,) beside the rows of `code_rows`."""

    def fault(self) -> str | None:
        """Fault of the present tensors that would make answers wrong or impossible, in words; None if there is none.

        Called after tensors were loaded from a file, which may have been edited. Names, shapes and types fit by then,
        and floating-point numbers are finite. A model, or a part of one with a method of this name, checks its own
        tables here, such as ranges of codes.
        """
        for part in self.modules():
            check = None if part is self else getattr(part, "fault", None)
            fault: str | None = None if check is None else check()
            if fault is not None:
                return fault
        return None

    def frozen(self) -> Self:
        """Return a twin in evaluation mode that shares the tensors of the model, whatever mode the model is in.

        Everything that scoring needs is computed here, by `settle` of every part. Scoring then writes nothing, so any
        number of threads can use the twin. Do not train the model while the twin is in use, since they share tensors.
        """
        twin = _twin(self, {})
        with torch.no_grad():
            for part in twin.modules():
                settle = getattr(part, "settle", None)
                if settle is not None:
                    settle()
        return twin

    def meet(self, dataset: Dataset) -> None:
        """Remember the vocabularies of the Dataset, and at the first meeting, at the fit, the items without a vector.

        Items that somebody takes later still have none.
        """
        self.vocabularies = Vocabularies.of(dataset)
        if self.cold is None:
            cold, table = dataset.cold_items, dataset.item_table
            self.cold = cold if table is None or not self.reads_content else cold[~table.described[cold - 1]]

    def other_vocabularies(self, dataset: Dataset) -> list[str]:
        """Vocabularies of a Dataset, "users" or "items", other than those of the fit; none if that is not known."""
        if self.vocabularies is None:
            return []
        pairs = zip(Vocabularies._fields, self.vocabularies, Vocabularies.of(dataset), strict=True)
        return [name for name, own, other in pairs if own != other]

    @property
    def device(self) -> torch.device:
        """Device of the tensors of the module."""
        tensor = next(chain(self.parameters(), self.buffers()), None)
        return torch.device("cpu") if tensor is None else tensor.device


class CountingModel(Model):
    """Model that is fitted in one pass over the data, without gradients.

    Examples
    --------
    >>> data = segue.simulate(20, 4).dataset()
    >>> model = segue.Markov().build(data.n_users, data.n_items)
    >>> isinstance(model, segue.CountingModel)
    True
    >>> model.count(data)
    """

    recounts: ClassVar[bool] = True
    """True if `count` is fast enough to be done again for newer data; False if it is a fit by itself."""

    @abstractmethod
    def count(self, dataset: Dataset) -> None:
        """Fill the buffers from the visible interactions."""


class Examples(Protocol):
    """Training units that a model makes of a Dataset; the trainer shuffles and groups them.

    Attributes
    ----------
    lengths
        (n,) length of each unit; a batch has units of similar length.
    weights
        (n,) number of terms that each unit adds to the loss; the trainer divides the summed loss by their sum.
    usual_batch
        Average number of units in a step, if the options of the training have no `batch_size`.
    usual_averaging
        Decay of the mean of the weights over epochs, if the options have no `averaging`.
    """

    lengths: npt.NDArray[np.int64]
    weights: npt.NDArray[np.int64]
    usual_batch: int
    usual_averaging: float

    def batch(self, index: npt.NDArray[np.int64], generator: np.random.Generator) -> Any:
        """Return a named tuple of tensors for the units at `index`; all randomness comes from `generator`."""


class TrainableModel(Model):
    """Model that is fitted by gradient steps. `forward(batch)` is the loss, summed over the terms of the batch.

    Examples
    --------
    >>> data = segue.simulate(20, 4).dataset()
    >>> model = segue.SASRec(width=8, blocks=1).resolved(data).build(data.n_users, data.n_items)
    >>> isinstance(model, segue.TrainableModel)
    True
    """

    @abstractmethod
    def examples(self, dataset: Dataset) -> Examples:
        """Return the training units of the visible interactions.

        Raises
        ------
        TrainingError
            The Dataset has nothing to learn from.
        """

    def rows_read(self, units: int, terms: int) -> dict[nn.Embedding, int]:
        """Number of rows that a step reads of each table, for a number of units and of terms of the loss.

        Tables that a step reads as a whole are left out.
        """
        return {}

    @abstractmethod
    def forward(self, batch: Any) -> Tensor:
        """Summed loss (a scalar) of a batch from `examples(...).batch`."""


def _twin(module: M, twins: dict[int, Any]) -> M:
    """Copy a module and its parts, in evaluation mode, on the same memory.

    `twins` maps the ids of modules and parameters to their twins so far, so that shared ones stay shared.
    """
    if id(module) in twins:
        existing: M = twins[id(module)]
        return existing
    twin = twins[id(module)] = copy.copy(module)

    def shared(parameter: nn.Parameter | None) -> nn.Parameter | None:
        if parameter is not None and id(parameter) not in twins:
            twins[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
        return twins.get(id(parameter))

    twin.__dict__["_parameters"] = {name: shared(parameter) for name, parameter in module._parameters.items()}
    twin.__dict__["_buffers"] = dict(module._buffers)
    twin.__dict__["_modules"] = {
        name: None if part is None else _twin(part, twins) for name, part in module._modules.items()
    }
    twin.__dict__["training"] = False
    return twin
