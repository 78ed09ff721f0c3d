"""Personal frequency: items that this user took often and lately, before all others.

The model is the personal top-frequency baseline of next-basket recommendation (P-TopFreq in Hu et al., *Modeling
Personalized Item Frequency Information for Next-basket Recommendation*, SIGIR 2020), with decay by basket and by time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from segue.data.dataset import Dataset
from segue.data.histories import Histories
from segue.data.sessions import UNITS_PER_SECOND
from segue.errors import ConfigError
from segue.models.base import CountingModel, ModelConfig
from segue.models.markov import Markov, MarkovInputs
from segue.models.popularity import Popularity, PopularityInputs, RecentPopularity
from segue.models.sparse import BasketInputs, DenseScores, add_entries, csr
from segue.settings import Positive, ShareAboveZero

SECONDS_PER_DAY = 86_400

_BEHIND = {"popularity": Popularity, "recent-popularity": RecentPopularity, "markov": Markov}


@dataclass(frozen=True)
class PersonalFrequency(ModelConfig):
    """Personal frequency: the score of an item is the number of the user's baskets with it; older ones weigh less.

    score(item) = Σ decay^(number of later baskets) · 2^(-age / half_life) + smoothing · q(item)

    The sum goes over the baskets of the history with the item. q is the probability of the item by the model behind:
    it orders equal counts and all items that the user never took, so lists are full. A session is a basket; without
    sessions each interaction is one. The published baseline is decay = 1 without half_life. The default of decay
    was chosen on a validation part of The Complete Journey.

    Examples
    --------
    >>> split = segue.last_session_out(segue.simulate(40, 6).dataset())
    >>> recommender = segue.fit(segue.PersonalFrequency(), split)
    >>> recommender.recommend(7, k=3)["rank"].to_list()
    [1, 2, 3]
    """

    decay: ShareAboveZero = 0.97
    """Weight of a basket relative to the next one; with 1 all weigh the same."""

    half_life: Positive | None = None
    """Age in days at which a basket weighs half as much as the newest one; None means no decay by time."""

    smoothing: Positive = 0.1
    """Weight of the model behind, in baskets. Small values only order equal counts and fill the list."""

    behind: Literal["popularity", "recent-popularity", "markov"] = "popularity"
    """Model behind, with its default settings."""

    name: ClassVar[str] = "personal-frequency"

    @classmethod
    def as_published(cls) -> Self:
        """Plain counts with popularity behind, as P-TopFreq in Hu et al. 2020."""
        return cls(decay=1.0, smoothing=1e-3)

    def resolved(self, dataset: Dataset) -> Self:
        """Return the settings.

        Raises
        ------
        ConfigError
            There is a half-life, and the Dataset has no times.
        """
        if self.half_life is not None and dataset.times is None:
            raise ConfigError(
                f"half_life={self.half_life:g} is a decay by time, and the Dataset has no times: prepare it with "
                "times, or leave half_life out."
            )
        return self

    def build(self, n_users: int, n_items: int) -> PersonalFrequencyModel:
        """An empty module; `count` fills it."""
        return PersonalFrequencyModel(self, n_users, n_items)


class PersonalInputs(NamedTuple):
    """Baskets of n histories, and the input of the model behind.

    Attributes
    ----------
    users, rows, items, later, ages, counts
        As in `BasketInputs`.
    behind
        The only tensor of the inputs of the model behind.
    """

    users: Tensor
    rows: Tensor
    items: Tensor
    later: Tensor
    ages: Tensor
    counts: Tensor
    behind: Tensor


class PersonalFrequencyModel(CountingModel):
    """Decayed counts of the history; the buffers are those of the model behind, and the length of a day.

    Buffers
    -------
    day
        () int64 length of a day in the unit of the times.
    """

    config: PersonalFrequency
    dense_queries = True
    counting_scores = True
    repeats_together = True
    day: Tensor

    def __init__(self, config: PersonalFrequency, n_users: int, n_items: int) -> None:
        super().__init__(config, n_users, n_items)
        self.behind = _BEHIND[config.behind]().build(n_users, n_items)
        self.register_buffer("day", torch.tensor(SECONDS_PER_DAY))

    def count(self, dataset: Dataset) -> None:
        """Count the model behind; the counts of a user are made from the history at each question."""
        self.behind.count(dataset)
        self.day.fill_(SECONDS_PER_DAY * UNITS_PER_SECOND[dataset.time_unit or "s"])

    def inputs(self, histories: Histories) -> PersonalInputs:
        """Baskets of each history, and the inputs of the model behind."""
        (behind,) = self.behind.inputs(histories)
        return PersonalInputs(*BasketInputs.of(histories), behind)

    def encode(self, inputs: PersonalInputs) -> Tensor:
        """Return the scores (n, n_items + 1) as queries."""
        arrays = [tensor.cpu().numpy() for tensor in inputs[:-1]]
        rows, items, later, ages = arrays[1:5]
        kind: Any = MarkovInputs if self.config.behind == "markov" else PopularityInputs
        behind = self.behind.scores().all(self.behind.encode(kind(inputs.behind)), 0, self.n_items + 1)
        scores: Tensor = behind.mul_(self.config.smoothing)
        weights = self._weights(later, ages)
        if scores.device.type == "cpu":
            add_entries(scores.numpy(), rows, items, weights)
            return scores
        # Each (row, item) occurs once in a matrix without duplicates, so no sum depends on an order.
        counts = csr(weights, rows, items, (scores.shape[0], scores.shape[1]))
        index = np.repeat(np.arange(scores.shape[0]) * scores.shape[1], np.diff(counts.indptr)) + counts.indices
        flat = scores.view(-1)
        flat[torch.from_numpy(index).to(flat.device)] += torch.from_numpy(counts.data).to(flat.device)
        return scores

    def _weights(self, later: Any, ages: Any) -> Any:
        """Weights (m,) float64 of the entries of baskets."""
        weights = self.config.decay ** later.astype(np.float64)
        if self.config.half_life is None:
            return weights
        return weights * np.exp2(-ages / (self.config.half_life * float(self.day)))

    def scores(self) -> DenseScores:
        """The scores that the queries hold."""
        return DenseScores()
