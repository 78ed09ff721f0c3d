"""What every model is: a frozen config, and a module that answers for histories.

To add a model, write one file with a config (a `ModelConfig`) and a module (a `CountingModel` or a
`TrainableModel`), and name it in `registry.py`. The trainer, the evaluation, the Recommender and the command line
then serve it.
"""

from __future__ import annotations

import copy
import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from itertools import chain
from typing import Any, ClassVar, NamedTuple, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from segue.data.dataset import Dataset
from segue.data.histories import Histories
from segue.models.scores import ItemScores
from segue.settings import Settings

M = TypeVar("M", bound=nn.Module)


@dataclasses.dataclass(frozen=True)
class ModelConfig(Settings, ABC):
    """Settings of a model: frozen, checked, and the same in Python, YAML and on the command line.

    A field's type says its range (`segue.settings`); rules that concern several fields are written in `check`.
    """

    name: ClassVar[str]
    task: ClassVar[str] = "next-items"
    """Name of the task that the model is made for: "next-items", "sessions" or "ratings". It gives the defaults."""
    formerly: ClassVar[Mapping[str, Any]] = {}
    """Values to assume for settings missing from older saved files."""

    def resolved(self, dataset: Dataset) -> Self:
        """The same settings, with those that depend on the data filled in from the visible interactions."""
        return self

    @abstractmethod
    def build(self, n_users: int, n_items: int) -> Model:
        """A new module for this many users and items, with weights drawn from torch's global generator."""

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain data, with the `name`, and for a model from outside of segue with the `class`."""
        own = {} if type(self).__module__.startswith("segue.") else {"class": self.import_path()}
        return {"name": self.name, **own, **super().to_dict()}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; an unknown setting is a ConfigError that names the nearest known one."""
        return super().from_dict({key: value for key, value in settings.items() if key not in ("name", "class")})

    @classmethod
    def import_path(cls) -> str:
        """The class as "package.module:Class"."""
        return f"{cls.__module__}:{cls.__qualname__}"


class Attention(NamedTuple):
    """What a model looked at when it made the queries of n histories.

    Attributes
    ----------
    weights
        (n, blocks, heads, width) float32: the weight of the item at `places` in each head of each block. Over the items
        of a history they sum to 1, or to 0 where there was nothing to look at.
    places
        (n, width) int64 positions in `Histories.items`; -1 where a history has no more.
    """

    weights: Tensor
    places: npt.NDArray[np.int64]


class Model(nn.Module, ABC):
    """What the Recommender and the evaluation ask of a model. All codes; no raw ids.

    Parameters
    ----------
    config
        The model's settings.
    n_users, n_items
        Sizes of the vocabularies; codes run from 1 to these, 0 is nobody and nothing.
    """

    max_history: int | None = None
    """How many of a history's newest items matter to `queries`; None = all."""

    personal: ClassVar[bool] = False
    """Whether `queries` depend on who the user is, and not on the history alone."""

    needs_history: ClassVar[bool] = True
    """Whether there must be a history to answer from; False: even an unknown user without one is answered."""

    def __init__(self, config: ModelConfig, n_users: int, n_items: int) -> None:
        super().__init__()
        self.config = config
        self.n_users = n_users
        self.n_items = n_items

    @abstractmethod
    def inputs(self, histories: Histories) -> Any:
        """A named tuple of tensors on the CPU: all that `encode` must know of n histories.

        Arrays in, tensors out; nothing is written, and no weight is read. Histories are not empty if the model
        `needs_history`.
        """

    @abstractmethod
    def encode(self, inputs: Any) -> Tensor:
        """Queries (n, …), all that is needed to score items, from a named tuple that `inputs` made.

        A function of tensors and weights without data-dependent Python, so that it can be exported (`torch.export`).
        Models whose steps depend on the lengths of baskets say so.
        """

    @abstractmethod
    def scores(self) -> ItemScores:
        """The scores of items as the weights are now; later changes of the weights may or may not show in them."""

    def item_vectors(self) -> Tensor | None:
        """Vectors (n_items + 1, width) whose cosine says how alike two items are, or None if there are none."""
        return None

    def attention(self, histories: Histories) -> Attention | None:
        """Attention of the queries of n histories over their items, or None if the model has no attention."""
        return None

    def prepare(self, dataset: Dataset) -> None:
        """Keep what the model must know of the visible interactions before it is trained: usual gap, known users, ….

        Called once, before `examples`. Nothing else writes to the model but the trainer and `count`.
        """

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
        """A twin that shares the model's tensors and answers without dropout, whatever mode the model is in.

        What asking needs is computed once, here (`settle` of every part), so that asking writes nothing: a twin may
        be asked by any number of threads. The tensors are the model's own; do not train it while the twin answers.
        """
        twin = _twin(self, {})
        with torch.no_grad():
            for part in twin.modules():
                settle = getattr(part, "settle", None)
                if settle is not None:
                    settle()
        return twin

    @property
    def device(self) -> torch.device:
        """Where the module's tensors are."""
        tensor = next(chain(self.parameters(), self.buffers()), None)
        return torch.device("cpu") if tensor is None else tensor.device


class CountingModel(Model):
    """A model that is fitted in one pass over the data, without gradients."""

    @abstractmethod
    def count(self, dataset: Dataset) -> None:
        """Fill the buffers from the visible interactions."""


class Examples(Protocol):
    """The units of training that a model makes of a Dataset; the trainer shuffles and groups them.

    Attributes
    ----------
    lengths
        (n,) how long each unit is: batches hold units of like length.
    weights
        (n,) number of terms that each unit adds to the loss; the trainer divides the summed loss by their sum.
    usual_batch
        How many units, on average, make a step where the options of the training name no number.
    usual_averaging
        How much of the mean of the weights stays when an epoch is added, where the options name no share.
    """

    lengths: npt.NDArray[np.int64]
    weights: npt.NDArray[np.int64]
    usual_batch: int
    usual_averaging: float

    def batch(self, index: npt.NDArray[np.int64], generator: np.random.Generator) -> Any:
        """A named tuple of tensors for the units at `index`, with all randomness taken from `generator`."""


class TrainableModel(Model):
    """A model fitted by gradient steps. `forward(batch)` is the loss, summed over the batch's terms."""

    @abstractmethod
    def examples(self, dataset: Dataset) -> Examples:
        """The training units of the visible interactions.

        Raises
        ------
        TrainingError
            There is nothing to learn from.
        """

    def rows_read(self, units: int, terms: int) -> dict[nn.Embedding, int]:
        """Tables of which a step reads single rows, and how many, with so many units and terms of the loss."""
        return {}

    @abstractmethod
    def forward(self, batch: Any) -> Tensor:
        """The summed loss of a batch made by `examples(...).batch`, a scalar."""


def _twin(module: M, made: dict[int, Any]) -> M:
    """A copy of a module and of its parts, in evaluation mode, around the same memory.

    `made` holds the twins of modules and parameters so far, by id, so that what is shared stays shared.
    """
    if id(module) in made:
        known: M = made[id(module)]
        return known
    twin = made[id(module)] = copy.copy(module)

    def shared(parameter: nn.Parameter | None) -> nn.Parameter | None:
        if parameter is not None and id(parameter) not in made:
            made[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
        return made.get(id(parameter))

    twin.__dict__["_parameters"] = {name: shared(one) for name, one in module._parameters.items()}
    twin.__dict__["_buffers"] = dict(module._buffers)
    twin.__dict__["_modules"] = {
        name: None if part is None else _twin(part, made) for name, part in module._modules.items()
    }
    twin.__dict__["training"] = False
    return twin
