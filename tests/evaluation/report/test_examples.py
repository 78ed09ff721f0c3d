from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from segue.data.dataset import Dataset
from segue.data.tables.table import Table
from segue.errors import UnknownIdError
from segue.evaluation.report.examples import examples_of
from segue.inference.recommender import Recommender
from segue.models.base import CountingModel
from segue.models.markov import Markov
from segue.models.popularity import Popularity
from tests.helpers import make_dataset

LOG = {"ann": ["tea", "jam", "tea", "jam"], "bob": ["tea", "jam", "oats"], "cy": ["oats", "tea"], "dan": []}


def fitted(config: Markov | Popularity, data: Dataset) -> Recommender:
    model = config.build(data.n_users, data.n_items)
    assert isinstance(model, CountingModel)
    model.count(data)
    return Recommender(model, data)


def test_examples_are_what_recommend_and_explain_say() -> None:
    recommender = fitted(Markov(), make_dataset(LOG))
    cy, bob = examples_of(recommender, ["cy", "bob"], k=2, newest=2)
    assert (cy.user, cy.history) == ("cy", ["oats", "tea"])
    assert (bob.user, bob.history) == ("bob", ["jam", "oats"]), "only the newest are shown"
    lists = recommender.recommend(["cy", "bob"], k=2)
    shown = [(example.user, suggestion.item) for example in (cy, bob) for suggestion in example.suggestions]
    assert shown == [(row["user"], row["item"]) for row in lists.to_dicts()]
    why = recommender.explain("cy", cy.suggestions[0].item)
    expected = [(row["because"], row["effect"]) for row in why.to_dicts() if row["effect"] > 0]
    assert cy.suggestions[0].reasons == expected
    assert expected[0][0] == "tea"


def test_every_item_that_a_reason_names_is_shown() -> None:
    log = {"ann": ["tea", "milk", "oats", "jam"], "bob": ["tea", "milk", "oats", "figs"]}
    plain = make_dataset(log, catalogue=["tea", "milk", "oats", "jam", "figs"])
    frame = pl.DataFrame({"name": ["Green tea", "Oat milk", "Oats", "Plum jam", "Figs"]})
    titled = replace(plain, item_table=Table(frame, {"name": "text"}, "item", title="name"))
    for data in (plain, titled):
        (ann,) = examples_of(fitted(Markov(steps=3), data), ["ann"], k=2, newest=1)
        assert len(ann.history) == 1 and ann.earlier
        named = {item for suggestion in ann.suggestions for item, _ in suggestion.reasons}
        assert named == set(ann.named) <= {*ann.earlier, *ann.history}
        assert ("Plum jam" in named) is (data is titled)


def test_what_adds_nothing_is_no_reason() -> None:
    (example,) = examples_of(fitted(Popularity(), make_dataset(LOG)), ["cy"])
    assert [suggestion.item for suggestion in example.suggestions] == ["jam"]
    assert not example.suggestions[0].reasons


def test_users_without_a_history_and_ids_that_are_numbers() -> None:
    (nobody,) = examples_of(fitted(Markov(), make_dataset(LOG)), ["dan"], k=10)
    assert not nobody.history
    assert len(nobody.suggestions) == 3, "no more than there are items"
    (first,) = examples_of(fitted(Markov(), make_dataset([[7, 8], [8, 9]])), [1])
    assert (first.user, first.history) == ("1", ["7", "8"])
    assert first.suggestions[0].item == "9"


def test_users_who_have_everything_get_nothing() -> None:
    (example,) = examples_of(fitted(Markov(), make_dataset({"ann": ["tea", "jam"]})), ["ann"])
    assert not example.suggestions


def test_unknown_users_are_named() -> None:
    with pytest.raises(UnknownIdError, match="eve"):
        examples_of(fitted(Markov(), make_dataset(LOG)), ["eve"])
