"""Blend: a weighted sum of the scores of several models, each as log-probability or by rank."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segue.data.histories import Histories
from segue.errors import ConfigError
from segue.models.base import Model, ModelConfig
from segue.models.registry import config_from_dict
from segue.models.scores import ItemScores
from segue.models.sparse import DenseScores
from segue.nn.moving import moved
from segue.settings import Penalty

By = Literal["log-probability", "rank"]
"""Form in which scores are added."""

_UNIFORM = 1e-3
"""Share of the uniform distribution in the probabilities of models that count, so that no logarithm is of 0."""
_RANK_SHIFT = 60.0
"""Constant of reciprocal rank fusion."""


@dataclass(frozen=True)
class Blend(ModelConfig):
    """Blend of fitted models; `segue.blend` makes it.

    score(item) = Σ_i weight_i · f(score_i(item))

    With `by="log-probability"`, f is the logarithm of the softmax over all items. For models that count, whose scores
    are not below 0, it is the logarithm of the share of the item in the sum of the scores. With `by="rank"`, f is
    1 / (60 + rank), the reciprocal rank fusion of Cormack, Clarke & Büttcher (SIGIR 2009); equal scores share a rank.
    """

    parts: tuple[Mapping[str, Any], ...]
    """Configs of the parts, as plain data (`ModelConfig.to_dict`)."""

    weights: tuple[Penalty, ...]
    """Weight of each part."""

    by: By = "log-probability"
    """Form in which the scores are added."""

    name: ClassVar[str] = "blend"

    def check(self) -> None:
        """Refuse other numbers of weights than of parts, and parts that rate."""
        if len(self.parts) < 2 or len(self.weights) != len(self.parts):
            raise ConfigError(
                f"a blend has two parts or more and a weight for each: found {len(self.parts)} parts "
                f"and {len(self.weights)} weights."
            )
        if not any(self.weights):
            raise ConfigError("all weights of the blend are 0: at least one part must count.")

    @property
    def configs(self) -> list[ModelConfig]:
        """Configs of the parts."""
        return [config_from_dict(part) for part in self.parts]

    def to_dict(self) -> dict[str, Any]:
        """Return the settings and the `name` as plain data."""
        parts = [dict(part) for part in self.parts]
        return {"name": self.name, "parts": parts, "weights": list(self.weights), "by": self.by}

    @classmethod
    def of(cls, configs: Iterable[ModelConfig], weights: Iterable[float], by: By) -> Self:
        """The blend of models with these configs."""
        return cls(tuple(config.to_dict() for config in configs), tuple(weights), by)

    def build(self, n_users: int, n_items: int) -> BlendModel:
        """A module with new parts, to load weights into."""
        return BlendModel(self, [config.build(n_users, n_items) for config in self.configs])


class PartInputs:
    """Inputs of one part, that move to a device as a tensor does."""

    def __init__(self, inputs: Any) -> None:
        self.inputs = inputs

    def to(self, device: torch.device, non_blocking: bool = False) -> PartInputs:
        """The same inputs on another device."""
        return PartInputs(moved(self.inputs, device, non_blocking))


class BlendInputs(tuple[PartInputs, ...]):
    """Inputs of all parts, made from its arguments as a named tuple is."""

    def __new__(cls, *parts: PartInputs) -> Self:
        """Inputs of the parts in their order."""
        return super().__new__(cls, parts)


class BlendModel(Model):
    """Fitted models and their weights. The queries are the blended scores of the whole catalogue.

    Parameters
    ----------
    config
        Settings.
    parts
        The models, for the same users and items.
    """

    config: Blend
    dense_queries = True

    def __init__(self, config: Blend, parts: list[Model]) -> None:
        super().__init__(config, parts[0].n_users, parts[0].n_items)
        self.parts = nn.ModuleList(parts)
        lengths = [part.max_history for part in parts]
        self.max_history = None if None in lengths else max(length for length in lengths if length is not None)
        self.personal = any(part.personal for part in parts)
        self.repeats_together = any(part.repeats_together for part in parts)
        self.needs_history = any(part.needs_history for part in parts)
        self._items: list[ItemScores] | None = None

    def models(self) -> list[Model]:
        """The parts."""
        return [part for part in self.parts if isinstance(part, Model)]

    def inputs(self, histories: Histories) -> BlendInputs:
        """Inputs of every part."""
        return BlendInputs(*(PartInputs(part.inputs(histories)) for part in self.models()))

    def encode(self, inputs: BlendInputs) -> Tensor:
        """Return the blended scores (n, n_items + 1) as queries."""
        tables = self.transformed(inputs)
        return sum_of(tables, self.config.weights)

    def transformed(self, inputs: BlendInputs) -> list[Tensor]:
        """Scores (n, n_items + 1) of each part, as log-probabilities or by rank; those of code 0 are 0."""
        items = [part.scores() for part in self.models()] if self._items is None else self._items
        tables = []
        for part, own, prepared in zip(self.models(), inputs, items, strict=True):
            scores = prepared.all(part.encode(own.inputs), 0, self.n_items + 1)
            tables.append(
                _by_rank(scores) if self.config.by == "rank" else log_probabilities(scores, part.counting_scores)
            )
        return tables

    def scores(self) -> DenseScores:
        """The scores that the queries hold."""
        return DenseScores()

    def settle(self) -> None:
        """Prepare the item tables of the parts once."""
        for part in self.models():
            for inner in part.modules():
                settle = getattr(inner, "settle", None)
                if settle is not None:
                    settle()
        self._items = [part.scores() for part in self.models()]


def sum_of(tables: Iterable[Tensor], weights: Iterable[float]) -> Tensor:
    """Weighted sum of tables of one shape."""
    total: Tensor | None = None
    for table, weight in zip(tables, weights, strict=True):
        if weight:
            total = table * weight if total is None else total.add_(table, alpha=weight)
    assert total is not None
    return total


def log_probabilities(scores: Tensor, counts: bool) -> Tensor:
    """Log-probabilities (n, n_items + 1) of the items, from scores of the same shape; 0 for code 0.

    Parameters
    ----------
    scores
        Scores of all items; they are overwritten.
    counts
        True for scores that are shares or counts; False for logits.
    """
    if counts:
        scores[:, 0] = 0.0
        scores = scores.clamp_(min=0.0)
        total = scores.sum(1, keepdim=True)
        scores = scores.mul_((1 - _UNIFORM) / total.clamp(min=1e-30)).add_(_UNIFORM / (scores.shape[1] - 1)).log_()
    else:
        scores[:, 0] = -torch.inf
        scores = F.log_softmax(scores, dim=1)
    scores[:, 0] = 0.0
    return scores


def _by_rank(scores: Tensor) -> Tensor:
    """Reciprocal ranks (n, n_items + 1) of the items; 0 for code 0."""
    negative = -scores
    negative[:, 0] = torch.inf
    above = torch.searchsorted(negative.sort(dim=1).values, negative)
    ranks = 1 / (_RANK_SHIFT + 1 + above)
    ranks[:, 0] = 0.0
    return ranks
