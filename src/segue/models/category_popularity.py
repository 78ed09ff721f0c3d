"""Popularity in the category: the most popular items of the categories that a user takes from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from segue.data.dataset import Dataset
from segue.data.tables.kinds import Kind
from segue.errors import ConfigError, nearest
from segue.models.base import ModelConfig
from segue.models.content import ContentCounts
from segue.models.sparse import BasketInputs, Floats, csr, histories_of_all, mean_entries, sets_of
from segue.settings import Positive, Word

_KINDS: tuple[Kind, ...] = ("category", "categories")


@dataclass(frozen=True)
class CategoryPopularity(ModelConfig):
    """Popularity in the category: the share of an item in all interactions, times that of its category in the history.

    score(i) = popularity(i) · (Σ over the categories c of i of the share of the history's items with c, + smoothing)

    The popularity of an item that nobody has taken is the mean popularity of the items of its categories.

    Examples
    --------
    >>> import polars as pl
    >>> log = segue.simulate(40, 6).log()
    >>> items = pl.DataFrame({"item": range(1, 301), "aisle": [f"aisle {item % 9}" for item in range(1, 301)]})
    >>> data = segue.prepare(log, items=items)
    >>> recommender = segue.fit(segue.CategoryPopularity(category="aisle"), segue.leave_last_out(data))
    >>> recommender.recommend(7, k=3)["rank"].to_list()
    [1, 2, 3]
    """

    name: ClassVar[str] = "category-popularity"

    category: Word | None = None
    """Column of the item table with the category or categories. When not given, the first such column."""

    smoothing: Positive = 1e-3
    """Share that every item has in addition, so that popularity orders items of other categories."""

    def resolved(self, dataset: Dataset) -> CategoryPopularity:
        """Return the settings with the column of the categories.

        Raises
        ------
        ConfigError
            There is no item table, or no such column with categories.
        """
        table = dataset.item_table
        names = [] if table is None else table.of_kind(*_KINDS)
        if not names:
            raise ConfigError(
                "category-popularity needs an item table with a column of categories, and this Dataset has none: "
                "prepare it with one (segue prepare --items products.parquet)."
            )
        if self.category is not None and self.category not in names:
            raise ConfigError(
                f'category: the item table has no column "{self.category}" of categories; '
                f"{nearest(self.category, names)}"
            )
        return replace(self, category=self.category or names[0])

    def build(self, n_users: int, n_items: int) -> CategoryPopularityModel:
        """An empty module; `count` fills it."""
        return CategoryPopularityModel(self, n_users, n_items)


class CategoryPopularityModel(ContentCounts):
    """Popularity of items, and their categories.

    Buffers
    -------
    content_values, content_columns, content_offsets
        Sparse (categories, n_items + 1): 1 for each category of an item.
    popularity
        (n_items + 1,) float32 share of each item in the interactions; the mean of its categories if nobody took it.
    usual_categories
        () float32 mean number of categories of a history of the fit.
    """

    config: CategoryPopularity
    popularity: Tensor
    usual_categories: Tensor

    def __init__(self, config: CategoryPopularity, n_users: int, n_items: int) -> None:
        super().__init__(config, n_users, n_items)
        self.register_buffer("popularity", torch.zeros(n_items + 1))
        self.register_buffer("usual_categories", torch.ones(()))

    def count(self, dataset: Dataset) -> None:
        """Count the interactions of the items, and of the items of each category."""
        assert self.config.category is not None
        self.set_content(self.read_content(dataset, [self.config.category]))
        counts = dataset.item_counts().astype(np.float64)
        content, taken = self.matrix("content"), counts > 0
        means = (content @ counts) / np.maximum(content @ taken.astype(np.float64), 1)
        sizes = np.maximum(np.diff(self.transposed("content").indptr), 1)
        expected = np.where(taken, counts, (content.T @ means) / sizes)
        self.set_buffer("popularity", expected / max(counts.sum(), 1.0))
        self.usual_categories.fill_(mean_entries(self.content_of(sets_of(histories_of_all(dataset), self.n_items))))

    def rows_of_scores(self, inputs: BasketInputs) -> Floats:
        """Popularity of the items, times the share of their categories in each history."""
        shape = (len(inputs.users), self.n_items + 1)
        shares = csr(np.ones(len(inputs.rows)), inputs.rows, inputs.items, shape)
        lengths = np.maximum(np.bincount(inputs.rows, minlength=shape[0]), 1).astype(np.float32)
        scores = self.times(self.content_of(shares), "content", float(self.usual_categories))
        scores /= lengths[:, None]
        scores += self.config.smoothing
        scores *= self.popularity.cpu().numpy()
        return scores

    def fault(self) -> str | None:
        """Popularity below 0."""
        return "popularity holds numbers below 0" if bool((self.popularity < 0).any()) else super().fault()
