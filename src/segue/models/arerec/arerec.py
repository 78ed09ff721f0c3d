"""ARERec: ratings predicted from the history of the item (Padungkiatwattana, Sae-Diae, Maneeroj & Takasu, IEEE Access
10, 2022).

The neighbours are users who rated the item before. Attention weights each neighbour for the user of the prediction. The
neighbours are compared region by region, and in each region the strongest one decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from segue.models.arerec.model import ARERecModel
from segue.models.arerec.settings import ARERecSettings


@dataclass(frozen=True)
class ARERec(ARERecSettings):
    """Probabilities of the levels of a user's rating of an item, from earlier ratings of the item.

    With `biases=False`, `neighbour_ratings=False` and `contexts="interaction"` it is the published model.

    Examples
    --------
    >>> ARERec(width=32).look_back is None
    True
    """

    name: ClassVar[str] = "arerec"
    task: ClassVar[str] = "ratings"

    def build(self, n_users: int, n_items: int) -> ARERecModel:
        """Return a new module with random weights; the settings must be `resolved`."""
        return ARERecModel(self, n_users, n_items)
