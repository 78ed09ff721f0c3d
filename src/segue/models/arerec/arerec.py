"""ARERec: ratings predicted from the history of the item (Padungkiatwattana, Sae-Diae, Maneeroj & Takasu, IEEE Access
10, 2022).

The neighbours are users who rated the item before. Attention weights each neighbour for the user of the prediction. The
neighbours are compared region by region, and in each region the strongest one decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from segue.models.arerec.model import ARERecModel
from segue.models.arerec.settings import ARERecSettings


@dataclass(frozen=True)
class ARERec(ARERecSettings):
    """Probabilities of the levels of a user's rating of an item, from earlier ratings of the item.

    With `biases=False`, `neighbour_ratings=False` and `contexts="interaction"` it is the published model.

    Examples
    --------
    >>> import polars as pl
    >>> log = pl.DataFrame({"user": [1, 1, 2, 2, 3, 3], "item": [1, 2, 1, 3, 2, 3], "rating": [5, 3, 4, 2, 3, 1]})
    >>> data = segue.prepare(log, time=False)
    >>> split = segue.random_rows(data, validation=0)
    >>> training = segue.Training(epochs=1, cpu=True)
    >>> recommender = segue.fit(segue.ARERec(width=8, region_size=2), split, training=training, quiet=True)
    >>> recommender.score(1, [3], long=True).columns
    ['user', 'item', 'score', 'model']
    """

    name: ClassVar[str] = "arerec"
    task: ClassVar[str] = "ratings"
    published_training: ClassVar[Mapping[str, Any]] = {
        "epochs": 100,
        "learning_rate": 1e-4,
        "batch_size": 8,
        "beta2": 0.999,
        "averaging": 0.0,
        "patience": None,
    }
    """A batch of 8 units of up to 16 ratings has about 128 ratings."""

    @classmethod
    def as_published(cls) -> Self:
        """Return the settings of the program, without its leak: neighbours are ratings in training only.

        `look_back="reference"` adds the leak, for comparison with published figures.
        """
        return cls(
            contexts="interaction",
            look_back="train",
            history_length="mean",
            keep="oldest",
            biases=False,
            neighbour_ratings=False,
            dropout_user=0.0,
            dropout_neighbour=0.0,
            dropout_item=0.0,
            dropout_k_ui=0.0,
            dropout_k_iu=0.0,
            dropout_user_rating=0.0,
        )

    def build(self, n_users: int, n_items: int) -> ARERecModel:
        """Return a new module with random weights; the settings must be `resolved`."""
        return ARERecModel(self, n_users, n_items)
