"""Fitted models and grown vocabularies: weights are carried over by raw id, into a model for more users and items.

A model declares the tensors whose rows are codes of users or items (`Model.code_rows`). All others have one meaning for
any catalogue. That is all that a start from a former model, or an answer about newer data, needs to know of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Set

import numpy as np
import torch
from torch import Tensor

from segue.data.dataset import Dataset
from segue.data.ragged import Int64
from segue.data.vocabulary import Vocabulary
from segue.errors import ConfigError
from segue.models.base import CodeRows, CountingModel, Model
from segue.models.item_table import CONTENT, ContentTable
from segue.models.scores import ItemScores

NONE: frozenset[str] = frozenset()

LOWEST = -1e30
"""Score of items that a model does not know: below every other, and finite."""


def check_start(
    config_of_start: Mapping[str, object], config: Mapping[str, object], may_change: frozenset[str]
) -> None:
    """Raise a ConfigError unless a model can start from another one.

    Parameters
    ----------
    config_of_start, config
        Settings of both models as plain data.
    may_change
        Settings that may differ.
    """
    if config_of_start["name"] != config["name"]:
        raise ConfigError(
            f"the model to start from is {config_of_start['name']}, and the new one is {config['name']}: weights go "
            "only from a model to one of its own kind. Leave the start out, or train the same model."
        )
    for name in sorted(config_of_start.keys() | config.keys()):
        mine, theirs = config.get(name), config_of_start.get(name)
        if name not in may_change and mine != theirs:
            raise ConfigError(
                f"{name}={mine!r} differs from {name}={theirs!r} of the model to start from, and its weights mean "
                f"something else there. Take {name}={theirs!r}, or leave the start out."
            )


def carry(
    model: Model, former: Model, dataset: Dataset, former_data: Dataset, *, learned_only: bool, skip: Set[str] = NONE
) -> None:
    """Copy the weights of a former model into a new one, row by row by raw id. Row 0 is carried too.

    Parameters
    ----------
    model
        The new model, for the users and items of `dataset`.
    former
        The former model, with the same settings, for those of `former_data`.
    dataset, former_data
        Datasets of both. Ids of other types are read as by `Vocabulary.convert`.
    learned_only
        Leave alone what the new model knows of its data: buffers that `prepare` fills. False carries them too.
    skip
        Names of tensors to leave alone.

    Raises
    ------
    ConfigError
        The tensors of the two do not fit, or the model does not say which rows are codes.
    """
    skip = skip | _carry_content(model, former, dataset, former_data, learned_only)
    rows = model.code_rows()
    sources = {
        "users": _Rows.of(dataset.users, former_data.users, former_data.lengths),
        "items": _Rows.of(dataset.catalogue, former_data.catalogue, former_data.item_counts()),
    }
    learned = {name for name, _ in model.named_parameters()} | model.learned_buffers()
    if learned_only:
        learned -= model.drawn_on_start()
    old = former.state_dict()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name in skip or (learned_only and name not in learned):
                continue
            if name not in rows:
                _copy(model, name, tensor, old.get(name))
            elif name in old and old[name].shape[1:] == tensor.shape[1:]:
                filled = sources[rows[name].side].filled(old[name].to(tensor.device), rows[name])
                if filled.shape != tensor.shape:
                    raise _misfit(model, name, tensor, old[name])
                tensor.copy_(filled)
            else:
                raise _misfit(model, name, tensor, old.get(name))


def _carry_content(
    model: Model, former: Model, dataset: Dataset, former_data: Dataset, learned_only: bool
) -> frozenset[str]:
    """Carry the content of item vectors, value by value, and return the names of its tensors.

    Raises
    ------
    ConfigError
        The Dataset has no item table, or lacks a column that the former model reads.
    """
    carried: set[str] = set()
    former_tables = dict(former.named_modules())
    for name, part in model.named_modules():
        if not isinstance(part, ContentTable):
            continue
        source, table, known = former_tables[name], dataset.item_table, former_data.item_table
        assert isinstance(source, ContentTable) and known is not None
        for column in part.names:
            if table is None or table.kinds.get(column) != known.kinds[column]:
                there = "no item table" if table is None else f"no column {column} of the kind {known.kinds[column]}"
                raise ConfigError(
                    f"the {model.config.name} reads the column {column} of the item table, and the Dataset has "
                    f"{there}: prepare it with the same table."
                )
        assert table is not None
        part.take(source, table, dataset.item_counts() > 0 if learned_only else None)
        carried |= {f"{name}.{tensor}" for tensor in CONTENT}
    return frozenset(carried)


class _Rows:
    """Rows of a former table for each code of a new vocabulary.

    Parameters
    ----------
    codes
        (n + 1,) former code of each new code; 0 for new ids, and for code 0.
    used
        Former codes with interactions, of which new rows are the mean.
    """

    def __init__(self, codes: Int64, used: Int64) -> None:
        self._codes, self._used = torch.from_numpy(codes), torch.from_numpy(used)

    @classmethod
    def of(cls, new: Vocabulary, former: Vocabulary, counts: Int64) -> _Rows:
        used = np.flatnonzero(counts)
        return cls(np.concatenate([[0], former.encode(new.ids)]), used if len(used) else np.arange(1, len(former) + 1))

    def filled(self, table: Tensor, rows: CodeRows) -> Tensor:
        """The table (n + 1, …) with the rows of known ids, and the fill of `rows` for new ones."""
        codes = self._codes.to(table.device)
        filled = table[codes]
        new = codes == 0
        new[0] = False
        if rows.fill == "mean" and len(self._used) and table.is_floating_point():
            filled[new] = table[self._used.to(table.device)].mean(0)
        elif rows.fill != "first":
            filled[new] = torch.zeros_like(filled[:1])
        return filled


def _copy(model: Model, name: str, tensor: Tensor, former: Tensor | None) -> None:
    if former is None or former.shape != tensor.shape:
        raise _misfit(model, name, tensor, former)
    tensor.copy_(former)


def _misfit(model: Model, name: str, tensor: Tensor, former: Tensor | None) -> ConfigError:
    shape = "missing" if former is None else f"of shape {tuple(former.shape)}"
    return ConfigError(
        f"{name} of the {model.config.name} to start from is {shape}, and the new model has the shape "
        f"{tuple(tensor.shape)}. If its rows are users or items, the model must say so in `code_rows`."
    )


# ---- answers about newer data --------------------------------------------------------------------------------------


def grown(model: Model, dataset: Dataset, former_data: Dataset) -> tuple[Model, Tensor]:
    """The same model for a Dataset whose vocabularies have grown, and the mask (n_items + 1,) of the items it knows.

    Nothing is trained. A model that counts in one pass counts the Dataset; it then knows all its items. Of any other,
    new users are unknown ones and new items get the rows of `Model.code_rows`; they are not known, unless the model
    reads their content.
    """
    if isinstance(model, CountingModel) and model.recounts:
        larger: Model = model.config.build(dataset.n_users, dataset.n_items).to(model.device)
        assert isinstance(larger, CountingModel)
        larger.count(dataset)
        return larger.eval(), torch.ones(dataset.n_items + 1, dtype=torch.bool)
    with torch.random.fork_rng(devices=[]):
        larger = model.config.build(dataset.n_users, dataset.n_items).to(model.device)
    taken = larger.grow_from(model)
    carry(larger, model, dataset, former_data, learned_only=False, skip=taken)
    known = torch.from_numpy(np.concatenate([[True], former_data.catalogue.encode(dataset.catalogue.ids) > 0]))
    for part in larger.modules():
        if isinstance(part, ContentTable):
            known |= part.has_content().cpu()
    return larger.eval(), known


class KnownScores(ItemScores):
    """Scores of items that a model knows; all others have the score `LOWEST`.

    Parameters
    ----------
    scores
        Scores of all items.
    known
        (n_items + 1,) bool mask of the items that the model knows.
    """

    def __init__(self, scores: ItemScores, known: Tensor) -> None:
        self._scores, self._unknown = scores, ~known

    def all(self, queries: Tensor, start: int, stop: int, out: Tensor | None = None) -> Tensor:
        """Scores (batch, stop - start) of the item codes start … stop - 1."""
        scores = self._scores.all(queries, start, stop, out)
        return scores.masked_fill_(self._unknown[start:stop].to(scores.device), LOWEST)

    def of(self, queries: Tensor, items: Tensor) -> Tensor:
        """Scores (batch, n) of `items` (batch, n)."""
        scores = self._scores.of(queries, items)
        return scores.masked_fill(self._unknown.to(items.device)[items], LOWEST)


def weights_fingerprint(model: Model) -> str:
    """Hash of the tensors of a model."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {plain.dtype} {list(plain.shape)}".encode())
        digest.update(plain.flatten().view(torch.uint8).numpy().data if plain.numel() else b"")
    return digest.hexdigest()


def forget_rows(model: Model, users: Int64) -> None:
    """Set the rows of these user codes (n,) to zero in every tensor of the model that has rows of users."""
    state = model.state_dict()
    with torch.no_grad():
        for name, rows in model.code_rows().items():
            if rows.side == "users" and name in state:
                state[name][torch.from_numpy(users).to(state[name].device)] = 0
    model.forget_users(users)
