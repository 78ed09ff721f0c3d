"""Raw ids and their codes: unknown ids are left out with a warning, and refused if none is known."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.data.ragged import Int64, offsets_of
from segue.data.sources import is_frame
from segue.data.vocabulary import Vocabulary, as_array, as_ids, raw_series
from segue.data.vocabulary import is_scalar as is_scalar
from segue.errors import DataError

if TYPE_CHECKING:  # a service without torch asks, too
    from segue.inference.scorer import Scorer

_MAX_LISTED = 5
"""Ids that a message lists; it counts the others."""


class UnknownIdWarning(UserWarning):
    """Warning about unknown ids in a question; the known ids were answered.

    Attributes
    ----------
    what
        "users" or "items".
    ids
        The unknown raw ids.
    """

    def __init__(self, what: str, ids: list[Any], consequence: str) -> None:
        noun = what.removesuffix("s") if len(ids) == 1 else what
        super().__init__(f"{len(ids):,} unknown {noun} {consequence}: {format_ids(ids)}.")
        self.what = what
        self.ids = ids


class UnratedItemWarning(UserWarning):
    """Warning of a model of ratings about items without ratings in training.

    Attributes
    ----------
    ids
        Raw ids of these items.
    """

    def __init__(self, ids: list[Any]) -> None:
        subject = "item has" if len(ids) == 1 else "items have"
        super().__init__(
            f"{len(ids):,} {subject} no ratings in training: the expected ratings depend on the user and on averages, "
            f"not on the item: {format_ids(ids)}."
        )
        self.ids = ids


class ColdItemWarning(UserWarning):
    """Warning about items of the item table that nobody had taken at the fit, and whose content the model ignores.

    Attributes
    ----------
    ids
        Raw ids of these items.
    """

    def __init__(self, ids: list[Any], consequence: str) -> None:
        subject = "item that nobody had taken" if len(ids) == 1 else "items that nobody had taken"
        super().__init__(
            f"{len(ids):,} {subject} when the model was fitted {consequence}, because the model reads no content: "
            f"{format_ids(ids)}."
        )
        self.ids = ids


class FloatIdWarning(UserWarning):
    """Warning about floats in a question that were read as the integers of the same value.

    A column of integers with missing values becomes floats in pandas; its type "Int64" keeps integers.
    """


def requested_ids(ids: Any, argument: str) -> pl.Series:
    """Raw ids of a question as Int64 or String: the one rule for users and items of all methods.

    Parameters
    ----------
    ids
        One raw id or several: a list, an array, a tensor or a column of any library. Missing ids are null.
    argument
        Name of the argument, for messages.

    Raises
    ------
    DataError
        They are no ids: a frame, a mapping, lists of lists, an array of two dimensions, or a mixture of types.
    """
    if (type(ids) is str and ids.isascii()) or (
        type(ids) is int and abs(ids) < 2**63
    ):  # a service asks for one user at a time
        return pl.Series([ids], dtype=pl.String if type(ids) is str else pl.Int64)
    if isinstance(ids, Mapping):
        raise DataError(f"{argument} is a mapping: expected raw ids. Its keys are not read as ids: give list(…).")
    if is_frame(ids):
        raise DataError(
            f"{argument} is a frame: expected raw ids. Give one of its columns, such as frame['user'], or "
            "histories=frame for a frame of histories."
        )
    if isinstance(ids, (bytes, bytearray)):
        raise DataError(f"{argument}={ids!r} is bytes: expected text or integers. Decode it first.")
    if getattr(ids, "ndim", None) == 0 and not isinstance(ids, np.generic):
        array = as_array(ids)
        ids = ids if array is None else array.item()
    try:
        series = raw_series([ids] if is_scalar(ids) else ids)
        plain = as_ids(series)
    except DataError as error:
        raise DataError(f"{argument}: {error}") from None
    example = _first_whole_float(ids, series)
    if example is not None:
        warnings.warn(
            FloatIdWarning(
                f"{argument} holds floats: {example!r} was read as the id {example:.0f}, and so on. "
                'Give integers; in pandas, the type "Int64" holds integers beside missing values.'
            ),
            stacklevel=_stack_level(),
        )
    return plain


def _first_whole_float(ids: Any, series: pl.Series) -> float | None:
    """First of the ids that is a float and a whole number; `series` holds them in their own type."""
    if series.dtype.is_float():
        floats = series.drop_nulls().drop_nans()
        whole = floats.filter(floats == floats.floor()).head(1)
        return float(whole[0]) if len(whole) else None
    if type(ids) in (list, tuple) and float in set(map(type, ids)):
        return next((one for one in ids if type(one) is float and one.is_integer()), None)
    return None


def unique_ids(ids: pl.Series) -> pl.Series:
    """The ids without repeats, in their order."""
    return ids if len(ids) < 2 else ids.unique(maintain_order=True)


def item_codes(catalogue: Vocabulary, items: Any, argument: str = "items") -> Int64:
    """Codes of known raw item ids without repeats; codes of the whole catalogue for None."""
    if items is None:
        return np.arange(1, len(catalogue) + 1, dtype=np.int64)
    return known_codes(catalogue, unique_ids(requested_ids(items, argument)), "items", "left out")


def known_codes(vocabulary: Vocabulary, ids: pl.Series, noun: str, consequence: str) -> Int64:
    """Codes of the known ids, with a warning about the others.

    Parameters
    ----------
    vocabulary
        The known ids.
    ids
        Raw ids.
    noun
        "users" or "items", for the warning.
    consequence
        What happened to the unknown ids, for the warning.

    Raises
    ------
    UnknownIdError
        There are ids, and none is known.
    """
    codes = vocabulary.encode(ids)
    if len(ids) and not codes.any():
        vocabulary.require(ids, noun.removesuffix("s"))
    if codes.all():
        return codes
    warn_unknown(noun, ids.filter(pl.Series(codes == 0)), consequence)
    return codes[codes > 0]


def allowed_items(
    catalogue: Vocabulary, allow: Iterable[Any] | None, deny: Iterable[Any] | None
) -> npt.NDArray[np.bool_] | None:
    """Mask (n_items + 1,) of the item codes that may be recommended; None for all."""
    if allow is None and deny is None:
        return None
    allowed = np.full(len(catalogue) + 1, allow is None)
    if allow is not None:
        allowed[item_codes(catalogue, allow, "allow")] = True
    if deny is not None:
        denied = requested_ids(deny, "deny")
        codes = catalogue.encode(denied)
        warn_unknown("items", denied.filter(pl.Series(codes == 0)), "ignored in deny")
        allowed[codes] = False
    allowed[0] = False
    return allowed


def encode_lists(
    catalogue: Vocabulary, lists: list[Any], argument: str
) -> tuple[npt.NDArray[np.int32], Int64, pl.Series]:
    """Encode lists of raw item ids as one flat array of codes, without the unknown ids.

    Parameters
    ----------
    catalogue
        The known items.
    lists
        n lists.
    argument
        "histories", "baskets", "allow" or "deny", for messages.

    Returns
    -------
    items
        (any,) int32 codes.
    offsets
        (n + 1,) first code of each list, and the end of the last.
    unknown
        Raw ids that were left out.

    Raises
    ------
    DataError
        One of `lists` is a single value.
    """
    if any(map(is_scalar, lists)):
        raise DataError(
            f"{argument} are lists of items, one per user: write {{'ann': ['tea', 'milk']}} or [['tea', 'milk']]."
        )
    if any(isinstance(one, Mapping) or is_frame(one) for one in lists):
        raise DataError(f"{argument} are lists of items, one per user: found a mapping or a frame among them.")
    lists = [one if type(one) in (list, tuple) else _plain_list(one, argument) for one in lists]
    offsets = offsets_of(np.fromiter(map(len, lists), dtype=np.int64, count=len(lists)))
    raw = requested_ids(list(chain.from_iterable(lists)), argument)
    codes = catalogue.encode(raw)
    known = np.concatenate([[0], np.cumsum(codes > 0)])[offsets]
    return codes[codes > 0].astype(np.int32), known, raw.filter(pl.Series(codes == 0))


def _plain_list(values: Any, argument: str) -> list[Any]:
    """Items of one list in an array, a tensor, a column or an iterator, as Python values."""
    array = as_array(values)
    if array is not None and array.ndim != 1:
        raise DataError(f"{argument} are lists of items, one per user: found an array of shape {array.shape}.")
    return list(values) if array is None else list(array.tolist())


def warn_unknown(noun: str, ids: pl.Series, consequence: str) -> None:
    """Warn about unknown ids, if there are any."""
    if len(ids):
        warning = UnknownIdWarning(noun, ids.unique(maintain_order=True).to_list(), consequence)
        warnings.warn(warning, stacklevel=_stack_level())


def warn_unrated(scorer: Scorer, catalogue: Vocabulary, items: Int64) -> None:
    """Warn about item codes without ratings in training, if the model predicts ratings; code 0 is ignored."""
    from segue.models.ratings import RatingModel

    model = scorer.model
    if not isinstance(model, RatingModel):
        return
    codes = np.unique(items)
    unrated = codes[model.unrated().cpu().numpy()[codes] & (codes > 0)]
    if len(unrated):
        warning = UnratedItemWarning(catalogue.decode(unrated).to_list())
        warnings.warn(warning, stacklevel=_stack_level())


def warn_cold(scorer: Scorer, catalogue: Vocabulary, items: Int64, consequence: str) -> None:
    """Warn about item codes that the model cannot score (`Model.cold`)."""
    if scorer.cold is None:
        return
    cold = np.intersect1d(items, scorer.cold.cpu().numpy())
    if len(cold):
        warnings.warn(ColdItemWarning(catalogue.decode(cold).to_list(), consequence), stacklevel=_stack_level())


def format_ids(ids: list[Any]) -> str:
    """The first few raw ids, and the number of the others."""
    more = f" and {len(ids) - _MAX_LISTED:,} more" if len(ids) > _MAX_LISTED else ""
    return ", ".join(map(repr, ids[:_MAX_LISTED])) + more


def _stack_level() -> int:
    """Find the `stacklevel` that makes a warning point at the caller outside segue."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("segue."):
        level, frame = level + 1, frame.f_back
    return level
