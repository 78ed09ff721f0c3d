"""A served Recommender: torch encodes the histories and scores the items."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from segue.data.dataset import Dataset
from segue.data.ragged import Int64
from segue.inference.asking.ids import ColdItemWarning, UnknownIdWarning, UnratedItemWarning
from segue.inference.asking.in_progress import sessions_in_progress
from segue.inference.asking.preferences import Preferences
from segue.inference.asking.users import RequestedUsers
from segue.inference.loading import load
from segue.inference.recommender import Recommender
from segue.inference.scoring.lists import best_lists
from segue.inference.scoring.popular import Rules, Scores
from segue.serving.items import Document, with_documents
from segue.serving.live import LiveHistories
from segue.serving.ranked import Ranked
from segue.serving.served import Served
from segue.serving.traced import traced


class TorchServed(Served):
    """A Recommender with live histories.

    Parameters
    ----------
    recommender
        An opened run.
    run
        Path that the run was opened from, for people.
    made
        Time of the training, in seconds since 1970; None if it is not known.
    documents
        Items that were put into the catalogue, by raw id.
    last_item
        Number of the last of them in the store.
    """

    def __init__(
        self,
        recommender: Recommender,
        run: str,
        made: float | None = None,
        documents: Mapping[str, Document] | None = None,
        last_item: int = 0,
    ) -> None:
        self._opened, self.opened = recommender, recommender.dataset
        if documents:
            recommender = _with_items(recommender, with_documents(recommender.dataset, documents, strict=False))
        super().__init__(recommender.dataset, recommender.scorer.config.name, run, made, last_item)
        self._recommender = copy.copy(recommender)
        self._recommender.source = self.live
        self.scorer = traced(recommender.scorer, recommender.dataset)
        self._quick = Ranked.of(self.scorer)
        self.n_items, self.needs_history = self.scorer.n_items, self.scorer.needs_history
        self.known_items, self.cold = recommender.known_items, recommender.model.cold

    @property
    def recommender(self) -> Recommender:
        """Recommender on the live histories."""
        return self._recommender

    @property
    def settings(self) -> Mapping[str, Any]:
        """Settings of the model, by name."""
        return self.scorer.config.to_dict()

    @property
    def preferences(self) -> Preferences:
        """Compiled rules over the item table."""
        return self._recommender._preferences

    @property
    def shares(self) -> Scores:
        """(n_items + 1,) popularity: share of each item in all interactions."""
        return self._recommender._shares

    def with_items(self, documents: Mapping[str, Document], last_item: int) -> TorchServed:
        """The same model with other items that were put. Its histories are empty: see `take_events`."""
        return TorchServed(self._opened, self.run, self.made, documents, last_item)

    def require_puts(self) -> None:
        """Allow items to be put."""

    def item_vectors(self) -> Scores:
        """Vectors (n_items + 1, width) of the items."""
        return self.scorer.dense_item_vectors()

    def take_events(self, live: LiveHistories) -> None:
        """Take over the events of other histories; nobody may add changes to these meanwhile."""
        super().take_events(live)
        self._recommender.source = self.live

    def rank(self, users: RequestedUsers, rules: Rules) -> tuple[Int64, Scores]:
        """Codes and scores (n, k) of the best items of users whom the model answers."""
        plain = rules.allowed is None and rules.offset is None and users.allowed is None and users.denied is None
        if self._quick is None or not plain:
            return best_lists(self.scorer, users, rules, self.shares)
        histories = users.histories
        return self._quick.lists(
            histories, rules.k, histories if rules.exclude_seen else sessions_in_progress(histories)
        )


def prepare(threads: int) -> None:
    """Set the number of threads of torch; answers say what is unknown, so no warning does."""
    torch.set_num_threads(threads)
    for category in (UnknownIdWarning, ColdItemWarning, UnratedItemWarning):
        warnings.filterwarnings("ignore", category=category)


def open_run(
    path: Path, run: str, made: float | None, documents: Mapping[str, Document] | None, last_item: int
) -> TorchServed:
    """Open a run to serve.

    Raises
    ------
    SegueError
        The run cannot be opened.
    """
    return TorchServed(load(path), run, made, documents, last_item)


def _with_items(recommender: Recommender, dataset: Dataset) -> Recommender:
    """The Recommender for a Dataset with more items, or with other columns of the same ones."""
    if dataset.n_items > recommender.dataset.n_items:
        return recommender.with_data(dataset)
    live = copy.copy(recommender)
    live.dataset = live.source = dataset
    return live
