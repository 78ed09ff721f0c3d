"""A served model without torch: an exported encoder, and the Dataset that gives histories and the item table."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from segue.data.dataset import Dataset
from segue.data.histories import Histories
from segue.data.ragged import Int64, offsets_of
from segue.errors import ConfigError, StorageError
from segue.files import read_json
from segue.inference.asking.in_progress import sessions_in_progress
from segue.inference.asking.preferences import Preferences
from segue.inference.asking.users import RequestedUsers
from segue.inference.onnx import folder as files
from segue.inference.onnx.reading import OnnxScorer
from segue.inference.scoring.popular import Rules, Scores
from segue.serving.items import Document, with_documents
from segue.serving.problems import Refused
from segue.serving.served import Served

if TYPE_CHECKING:
    from segue.inference.recommender import Recommender


class OnnxServed(Served):
    """An exported model with live histories. It answers lists, with all rules, and knows users, items and events.

    Parameters
    ----------
    scorer
        The exported model.
    dataset
        Dataset with the same items. Further items behind them are known, and in no list.
    settings
        Settings of the model, by name.
    run
        Path of the export, for people.
    made
        Time of the export, in seconds since 1970; None if it is not known.
    documents
        Items that other servers put, by raw id; those that the export does not know are left out.
    last_item
        Number of the last of them in the store.
    """

    def __init__(
        self,
        scorer: OnnxScorer,
        dataset: Dataset,
        settings: Mapping[str, Any],
        run: str,
        made: float | None = None,
        documents: Mapping[str, Document] | None = None,
        last_item: int = 0,
    ) -> None:
        self.scorer, self.opened, self._settings = scorer, dataset, settings
        self.n_items, self.needs_history, self.cold = scorer.n_items, scorer.needs_history, scorer.cold
        if documents:
            known = dataset.catalogue.encode(list(documents)) > 0
            fitting = {item: one for (item, one), fits in zip(documents.items(), known.tolist(), strict=True) if fits}
            dataset = with_documents(dataset, fitting, strict=False)
        super().__init__(dataset, scorer.name, run, made, last_item)

    @property
    def recommender(self) -> Recommender:
        """Refuse: reasons, similar items, completions and earlier times need torch."""
        raise _needs_torch()

    @property
    def settings(self) -> Mapping[str, Any]:
        """Settings of the model, by name."""
        return self._settings

    @cached_property
    def preferences(self) -> Preferences:
        """Compiled rules over the item table."""
        return Preferences(self.dataset.item_table, self.dataset.catalogue.ids)

    @cached_property
    def shares(self) -> Scores:
        """(n_items + 1,) popularity: share of each item in all interactions."""
        counts = self.item_counts[: self.n_items + 1].astype(np.float64)
        shares: Scores = (counts / max(1, counts.sum())).astype(np.float32)
        return shares

    def with_items(self, documents: Mapping[str, Document], last_item: int) -> OnnxServed:
        """The same model with other columns of its items. Its histories are empty: see `take_events`."""
        return OnnxServed(self.scorer, self.opened, self._settings, self.run, self.made, documents, last_item)

    def require_puts(self) -> None:
        """Refuse to put items: the encoder has no vectors for new ones."""
        raise _needs_torch()

    def item_vectors(self) -> Scores:
        """Vectors (n_items + 1, width) of the items."""
        vectors: Scores = self.scorer.table.copy()
        vectors[0] = 0
        return vectors

    def recommends(self, code: int) -> bool:
        """True if lists may hold the item with this code."""
        return code <= self.n_items and super().recommends(code)

    def rank(self, users: RequestedUsers, rules: Rules) -> tuple[Int64, Scores]:
        """Codes and scores (n, k) of the best items of users whom the model answers."""
        histories = users.histories
        return self.scorer.top_k(
            histories,
            rules.k,
            exclude_seen=True,
            seen=histories if rules.exclude_seen else sessions_in_progress(histories) or _none(len(histories)),
            offset=rules.offset,
            own_allowed=users.allowed,
            own_denied=users.denied,
        )


def _none(n: int) -> Histories:
    """Empty histories of n users."""
    offsets = offsets_of(np.zeros(n, dtype=np.int64))
    items: npt.NDArray[np.int32] = np.zeros(0, dtype=np.int32)
    return Histories(np.zeros(n, dtype=np.int64), items, offsets[:-1], offsets[1:])


def _needs_torch() -> Refused:
    return Refused(
        501,
        "not-implemented",
        "the server runs an exported model (--engine onnx), which answers lists and events: reasons, scores, similar "
        "items, completions, as_of and new items need a server with torch.",
    )


def open_export(
    path: Path,
    run: str,
    made: float | None,
    documents: Mapping[str, Document] | None,
    last_item: int,
    data: Path | None,
    threads: int,
) -> OnnxServed:
    """Open a folder of `segue export --to onnx` to serve.

    Parameters
    ----------
    path
        The folder.
    run, made, documents, last_item
        As for `OnnxServed`.
    data
        Folder of the Dataset; None for the one in the export.
    threads
        Threads of each computation.

    Raises
    ------
    ConfigError
        There is no Dataset in the export and none is named, or onnxruntime is missing.
    StorageError
        A folder cannot be opened, or the Dataset has other items than the export.
    """
    scorer = OnnxScorer.open(path, threads=threads)
    place = data or path / files.DATA
    if data is None and not place.is_dir():
        raise ConfigError(
            f"{path} holds no Dataset, which gives the histories: export with `segue export … --with-data`, or name "
            "one with --data."
        )
    dataset = Dataset.open(place)
    ids = files.read_ids(path / files.ITEM_IDS, scorer.n_items).ids
    if dataset.n_items != len(ids) or dataset.catalogue.ids.to_list() != ids:
        raise StorageError(
            f"{place} has {dataset.n_items:,} items, and the export in {path} has {len(ids):,} or other ones: name the "
            "Dataset that the run was trained on."
        )
    if "users" in scorer.inputs and dataset.n_users != scorer.n_users:
        raise StorageError(
            f"{place} has {dataset.n_users:,} users, and the export in {path} has {scorer.n_users:,}: name the Dataset "
            "that the run was trained on."
        )
    settings = read_json(path / files.MANIFEST).get("settings")
    return OnnxServed(scorer, dataset, settings or {}, run, made, documents, last_item)
