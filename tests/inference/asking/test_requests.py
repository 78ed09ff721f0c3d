"""Requests: one rule for ids everywhere, everyone by name only, and rules for single users."""

from __future__ import annotations

import copy
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

import segue
from segue.data.dataset import Dataset
from segue.data.vocabulary import Vocabulary
from segue.errors import ConfigError, DataError, EvaluationError, SegueError, StorageError, UnknownIdError
from segue.inference.asking.ids import FloatIdWarning, UnknownIdWarning
from segue.inference.recommender import Recommender
from segue.models.markov import Markov
from tests.inference.fakes import Shopper, Table, dataset, random_dataset, session_dataset

HISTORIES = [[1, 2], [3], [2, 4, 1], []]
SCORES = np.arange(30, dtype=np.float32).reshape(5, 6) % 7


def answers(users: list[Any] | None = None) -> Recommender:
    """Four users (by default 1 to 4; the last has no history) and items 10 to 50."""
    return Recommender(Table(SCORES), dataset(HISTORIES, 5, users))


def markov() -> Recommender:
    data = random_dataset(23, 12, 6)
    model = Markov().build(data.n_users, data.n_items)
    model.count(data)
    return Recommender(model, data)


# ---- one rule for ids -----------------------------------------------------------------------------------------------

WAYS_TO_ASK = {
    "recommend": lambda r, user: r.recommend(user, k=1),
    "score": lambda r, user: r.score(user, 10),
    "complete": lambda r, user: r.complete(user, 1),
    "explain": lambda r, user: r.explain(user, 10),
    "export": lambda r, user: r.export("never.csv", user, k=1),
}
WAYS_TO_NAME_ITEMS = {
    "score": lambda r, item: r.score(1, item),
    "explain": lambda r, item: r.explain(1, item),
    "allow": lambda r, item: r.recommend(1, allow=item, k=1),
}


@pytest.mark.parametrize("ask", WAYS_TO_ASK.values(), ids=list(WAYS_TO_ASK))
@pytest.mark.parametrize("user", ["+2", " 2", "2 ", "002", "2.0", "2e0", "\u0662", "two", True, np.True_, "True"])
def test_another_spelling_is_another_user(ask: Any, user: Any) -> None:
    for asked in (user, [user], pl.Series([user])):
        with pytest.raises(UnknownIdError, match="unknown user"):
            ask(answers(), asked)


@pytest.mark.parametrize("ask", WAYS_TO_NAME_ITEMS.values(), ids=list(WAYS_TO_NAME_ITEMS))
@pytest.mark.parametrize("item", ["+20", " 20", "020", "20.0", True])
def test_another_spelling_is_another_item(ask: Any, item: Any) -> None:
    with pytest.raises(UnknownIdError, match="unknown item"):
        ask(answers(), item)


@pytest.mark.parametrize("item", ["+20", "020", "20.0"])
def test_another_spelling_is_another_item_in_lists_too(item: str) -> None:
    with pytest.warns(UnknownIdWarning, match="unknown item left out of the histories"):
        lists = answers().recommend(histories=[[item]], k=1)
    assert lists["model"].to_list() == ["popularity"]
    with pytest.warns(UnknownIdWarning, match="unknown item ignored in deny"):
        assert_frame_equal(answers().recommend(1, k=3, deny=[item]), answers().recommend(1, k=3))
    with pytest.warns(UnknownIdWarning, match="unknown item ignored in deny"):
        assert_frame_equal(answers().recommend(1, k=3, deny={1: [item]}), answers().recommend(1, k=3))
    shop = Recommender(Shopper(2, 6), session_dataset([[[1]], [[2]]], 6, [7, 8]))
    with pytest.warns(UnknownIdWarning, match="unknown item left out of the basket"):
        shop.recommend(7, basket=[item], k=1)
    with pytest.raises(ConfigError, match="users that are not in the question: '\\+7'"):
        shop.recommend([7, 8], basket={"+7": [10]}, k=1)


def test_an_unknown_spelling_keeps_its_name_in_the_answer() -> None:
    lists = answers().recommend(["+2", "2"], k=1, unknown="popular")
    assert lists.select("user", "model").rows() == [("+2", "popularity"), ("2", "table")]
    given_histories = answers().recommend(histories={"+2": [10], "2": [10]}, k=1, exclude_seen=False)
    assert given_histories["user"].to_list() == ["+2", "2"]
    assert given_histories["score"].to_list() == [SCORES[0, 1:].max(), SCORES[2, 1:].max()]


@pytest.mark.parametrize(
    "users",
    [
        2,
        "2",
        [2],
        ("2",),
        np.int8(2),
        np.array(2),
        np.array([2]),
        torch.tensor(2),
        torch.tensor([2]),
        pl.Series([2]),
        pl.Series(["2"], dtype=pl.Categorical),
        range(2, 3),
        iter([2]),
        {2: "a"}.keys(),
        {2},
    ],
    ids=lambda users: type(users).__name__,
)
def test_forms_of_one_user(users: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert answers().recommend(users, k=1)["user"].to_list() == [2]


def test_columns_of_pandas_and_arrow() -> None:
    pd, pa = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    columns = (
        pd.Series([2, 3], dtype="Int64"),
        pd.Series([2, 3]),
        pd.Series(["2", "3"]),
        pd.Series(["2", "3"], dtype="string"),
        pd.Series([2, 3], dtype="category"),
        pd.Index([2, 3]),
        pa.array([2, 3]),
        pa.chunked_array([[2], [3]]),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for users in columns:
            assert answers().recommend(users, k=1)["user"].to_list() == [2, 3], type(users)


def test_missing_ids_are_left_out_with_a_warning() -> None:
    pd = pytest.importorskip("pandas")
    for users in (pd.Series([2, None], dtype="Int64"), [2, None], pl.Series([2, None]), [None, "2"], [2, pd.NA]):
        for unknown in ("skip", "popular"):
            with pytest.warns(UnknownIdWarning, match="1 unknown user left out: None"):
                lists = answers().recommend(users, k=1, unknown=unknown)
            assert lists["user"].to_list() == [2]
        with pytest.warns(UnknownIdWarning):
            assert set(answers().explain(users, 10)["user"]) <= {2}
    for users in ([None], [None, None], float("nan"), pd.NA):
        with pytest.raises(UnknownIdError, match=r"only missing ids .* users=segue\.EVERYONE"):
            answers().recommend(users, k=1)


@pytest.mark.parametrize("users", [2.0, [2.0, 3.0], np.array([2.0, np.nan]), [2, 3.0]])
def test_floats_are_not_read_as_integers_in_silence(users: Any) -> None:
    with (
        pytest.warns(FloatIdWarning, match=r"users holds floats: [23]\.0 was read as the id [23]"),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", "1 unknown user", UnknownIdWarning)
        assert answers().recommend(users, k=1)["user"][0] == 2


@pytest.mark.parametrize(
    ("users", "message"),
    [
        (pl.DataFrame({"user": [1, 2]}), r"users is a frame.*frame\['user'\]"),
        (pl.LazyFrame({"user": [1, 2]}), "users is a frame"),
        (np.array([[1, 2], [3, 4]]), r"users: the ids are an array of shape \(2, 2\)"),
        (torch.ones(2, 2), r"array of shape \(2, 2\)"),
        ([[1, 2], [3, 4]], "users: an id is a list"),
        ([np.array([1])], "users: an id is a ndarray"),
        (pl.Series([[1, 2]]), r"users: ids of type List\(Int64\)"),
        (b"2", "is bytes"),
        ([1, "2"], r"users: ids mix types \(number, str\)"),
        (2.0**60, "may have lost digits"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_names_no_users(users: Any, message: str) -> None:
    for ask in WAYS_TO_ASK.values():
        with pytest.raises(DataError, match=message):
            ask(markov(), users)


def test_frames_and_mappings_are_no_items() -> None:
    for items in (pl.DataFrame({"item": [10]}), {10: 1}, {}, np.ones((2, 2))):
        with pytest.raises(DataError, match=r"items(:| is)"):
            answers().score(1, items)
        with pytest.raises(DataError, match="histories"):
            answers().recommend(histories=[items], k=1)
    with pytest.raises(DataError, match="allow is a frame"):
        answers().recommend(1, k=1, allow=pl.DataFrame({"item": [10]}))
    with pytest.raises(DataError, match="basket is a frame"):
        answers().recommend(1, k=1, basket=pl.DataFrame({"item": [10]}))
    with pytest.raises(DataError, match="histories=10 is one value"):
        answers().recommend(histories=10, k=1)


def test_histories_of_arrays_and_tensors() -> None:
    expected = answers().recommend(histories=[[10, 20], [30, 40]], k=2)
    for histories in (
        np.array([[10, 20], [30, 40]]),
        torch.tensor([[10, 20], [30, 40]]),
        [torch.tensor([10, 20]), pl.Series([30, 40])],
        [range(10, 21, 10), (30, 40)],
        [iter([10, 20]), np.array([30, 40])],
    ):
        assert_frame_equal(answers().recommend(histories=histories, k=2), expected)


WRONG = [
    object(),
    3,
    -1,
    2.5,
    float("inf"),
    "",
    "x",
    b"",
    True,
    [],
    {},
    {1: 2},
    {1: [2]},
    {None: [10]},
    {(1, 2): [10]},
    [None],
    [[]],
    [[[10]]],
    [{}],
    {3, 4},
    (),
    np.array([]),
    np.ones((1, 1, 1)),
    torch.ones(()),
    pl.DataFrame(),
    pl.Series([], dtype=pl.Null),
    pl.Series([[1]]),
    pl.col("user"),
    lambda: 1,
    int,
    2**70,
    Ellipsis,
    segue.EVERYONE,
]


@settings(max_examples=400)
@given(
    method=st.sampled_from(["recommend", "score", "complete", "explain", "similar", "attention"]),
    arguments=st.dictionaries(
        st.sampled_from(["users", "items", "histories", "basket", "allow", "deny"]), st.sampled_from(WRONG), max_size=3
    ),
)
def test_a_wrong_request_is_an_error_of_segue_or_an_answer(method: str, arguments: dict[str, Any]) -> None:
    known = {
        "recommend": {"users", "histories", "basket", "allow", "deny"},
        "complete": {"users", "histories", "basket", "allow", "deny"},
        "score": {"users", "items", "histories", "basket"},
        "explain": {"users", "items", "histories", "basket"},
        "similar": {"items"},
        "attention": {"users", "histories", "basket"},
    }[method]
    arguments = {name: copy.copy(value) for name, value in arguments.items() if name in known}
    extra = {"k": 2} if method in ("recommend", "similar") else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            answer = getattr(markov(), method)(**arguments, **extra)
        except SegueError as error:
            assert str(error).strip()
        else:
            assert isinstance(answer, pl.DataFrame)


# ---- everyone -------------------------------------------------------------------------------------------------------


def test_everyone_by_name() -> None:
    assert_frame_equal(answers().recommend([1, 2, 3, 4], k=2), answers().recommend(segue.EVERYONE, k=2))
    assert answers().score(segue.EVERYONE, 10)["user"].to_list() == [1, 2, 3, 4]
    assert answers().complete(segue.EVERYONE, 1)["user"].to_list() == [1, 2, 3, 4]
    assert markov().explain(segue.EVERYONE, 10)["user"].n_unique() == 23
    assert repr(segue.EVERYONE) == "segue.EVERYONE"
    assert pickle.loads(pickle.dumps(segue.EVERYONE)) is copy.deepcopy(segue.EVERYONE) is segue.EVERYONE


@pytest.mark.parametrize("request_", [{}, {"users": None}, {"users": {}}, {"histories": None}, {"histories": {}}])
def test_an_empty_request_does_not_ask_for_everyone(request_: dict[str, Any], tmp_path: Path) -> None:
    for ask in (answers().recommend, answers().score, answers().complete, answers().explain, answers().attention):
        with pytest.raises(ConfigError, match=r"segue\.EVERYONE"):
            ask(**request_)
    if "histories" not in request_:
        with pytest.raises(ConfigError, match=r"segue\.EVERYONE"):
            answers().export(tmp_path / "lists.csv", **request_, k=1)


def test_none_beside_another_argument_says_nothing() -> None:
    for one, other in (
        ({"users": 1, "histories": None}, {"users": 1}),
        ({"users": None, "histories": [[10]]}, {"histories": [[10]]}),
        ({"users": None, "histories": None, "basket": [10]}, {"basket": [10]}),
    ):
        assert_frame_equal(answers().recommend(**one, k=2), answers().recommend(**other, k=2))


def test_users_are_no_mapping_and_everyone_has_no_other_histories() -> None:
    with pytest.raises(ConfigError, match=r"users is a mapping.*histories="):
        answers().recommend({1: [10]}, k=1)
    with pytest.raises(ConfigError, match="users or histories, not both"):
        answers().recommend(segue.EVERYONE, histories=[[10]], k=1)


# ---- allow and deny for single users --------------------------------------------------------------------------------


def test_deny_by_user() -> None:
    free = answers().recommend(segue.EVERYONE, k=5)
    limited = answers().recommend(segue.EVERYONE, k=5, deny={1: [50], 4: [10, 20]})
    assert set(free.filter(user=1)["item"]) - set(limited.filter(user=1)["item"]) == {50}
    assert set(free.filter(user=4)["item"]) - set(limited.filter(user=4)["item"]) == {10, 20}
    for user in (2, 3):
        assert_frame_equal(free.filter(user=user), limited.filter(user=user))
    assert limited.filter(user=4)["rank"].to_list() == [1, 2, 3]


def test_allow_by_user() -> None:
    limited = answers().recommend(segue.EVERYONE, k=5, allow={1: [50, 30], 2: [], 4: [50]})
    assert limited.group_by("user").agg(pl.col("item").sort()).sort("user").rows()[:1] == [(1, [30, 50])]
    assert limited.filter(user=2).is_empty()
    assert limited.filter(user=4)["item"].to_list() == [50]
    assert_frame_equal(limited.filter(user=3), answers().recommend(3, k=5))
    both = answers().recommend(segue.EVERYONE, k=5, allow={1: [50, 30]}, deny={1: [30]})
    assert both.filter(user=1)["item"].to_list() == [50]
    shared = answers().recommend(segue.EVERYONE, k=5, allow=[30, 50], deny={1: [30], 4: [50]})
    assert shared.filter(user=1)["item"].to_list() == [50] and shared.filter(user=4)["item"].to_list() == [30]


def test_ids_of_lists_by_user() -> None:
    expected = answers().recommend([1, 2], k=3, deny={1: [50]})
    assert_frame_equal(answers().recommend([1, 2], k=3, deny={"1": ["50"]}), expected)
    assert_frame_equal(answers().recommend([1, 2], k=3, deny={"1": np.array([50]), "3": [10]}), expected)
    with pytest.warns(UnknownIdWarning, match=r"1 unknown user ignored in deny: '\+1'"):
        assert_frame_equal(answers().recommend(1, k=3, deny={"+1": [50]}), answers().recommend(1, k=3))
    with pytest.raises(DataError, match="deny are lists of items"):
        answers().recommend(1, k=1, deny={1: 50})
    with pytest.raises(ConfigError, match=r"allow={} allows no user"):
        answers().recommend(1, k=1, allow={})
    assert_frame_equal(answers().recommend(1, k=2, deny={}), answers().recommend(1, k=2))
    assert answers().recommend(1, k=2, allow=[]).is_empty()


def test_lists_by_user_of_given_histories_and_steps() -> None:
    lists = answers().recommend(histories={"eve": [10], "fay": [10]}, k=5, deny={"eve": [50, 40]})
    assert sorted(lists.filter(user="eve")["item"]) == [20, 30]
    assert sorted(lists.filter(user="fay")["item"]) == [20, 30, 40, 50]
    steps = answers().complete([1, 4], 3, allow={1: [30, 40], 4: [20]})
    assert steps.group_by("user", maintain_order=True).agg(pl.col("item").sort()).rows() == [(1, [30, 40]), (4, [20])]


@settings(max_examples=60)
@given(data=st.data())
def test_lists_by_user_are_those_of_each_user_alone(data: st.DataObject) -> None:
    recommender = answers() if data.draw(st.booleans()) else markov()
    everyone, items = recommender.dataset.users.ids.to_list(), recommender.dataset.catalogue.ids.to_list()
    some = st.dictionaries(st.sampled_from(everyone), st.lists(st.sampled_from(items)), max_size=6)
    shared = st.lists(st.sampled_from(items), min_size=1)
    allow = data.draw(st.none() | shared | some.filter(bool))
    deny = data.draw(st.none() | shared | some)
    exclude_seen = data.draw(st.booleans())

    def own(rule: Any, user: Any) -> Any:
        return rule.get(user) if isinstance(rule, dict) else rule

    whole = recommender.recommend(segue.EVERYONE, k=4, allow=allow, deny=deny, exclude_seen=exclude_seen)
    for user in everyone[:8]:
        alone = recommender.recommend(
            user, k=4, allow=own(allow, user), deny=own(deny, user), exclude_seen=exclude_seen
        )
        assert_frame_equal(whole.filter(user=user), alone)
        one_of = recommender.recommend(user, k=4, allow=allow, deny=deny, exclude_seen=exclude_seen)
        assert_frame_equal(one_of, alone)


def test_an_export_with_lists_by_user_is_the_same_and_resumes_with_the_same_ones_only(tmp_path: Path) -> None:
    from segue.inference import export

    rule = {3: [10, 20, 30], 20: [40]}
    path = markov().export(tmp_path / "out.parquet", segue.EVERYONE, k=4, chunk=7, deny=rule)
    expected = markov().recommend(segue.EVERYONE, k=4, deny=rule)
    assert_frame_equal(pl.read_parquet(path), expected, check_exact=True)
    requested = markov()._resolve(segue.EVERYONE, None, None, None, "skip", None, rule)[0]
    other = markov()._resolve(segue.EVERYONE, None, None, None, "skip", None, {3: [10, 20]})[0]
    rules = export.Rules(4)
    one, two = (export._identity(markov().scorer, markov().source, users, rules, None) for users in (requested, other))
    assert one != two
    assert "own_denied" not in export._identity(
        markov().scorer, markov().source, markov()._resolve(1, None, None, None, "skip")[0], rules, None
    )


# ---- a model and its Dataset ----------------------------------------------------------------------------------------


def test_a_model_is_refused_with_other_vocabularies() -> None:
    model = answers(["ann", "bob", "cat", "dan"]).model
    assert Recommender(model, dataset(HISTORIES, 5, ["ann", "bob", "cat", "dan"]))
    with pytest.raises(StorageError, match="fitted with other users than those of this Dataset"):
        Recommender(model, dataset(HISTORIES, 5, ["ann", "bob", "cat", "eve"]))
    with pytest.raises(StorageError, match="other users"):
        Recommender(model, dataset(HISTORIES, 5, [1, 2, 3, 4]))
    same = dataset(HISTORIES, 5, ["ann", "bob", "cat", "dan"])
    moved = Dataset(same.items, same.offsets, Vocabulary.in_order(["bob", "ann", "cat", "dan"]), same.catalogue)
    with pytest.raises(StorageError, match="other users"):
        Recommender(model, moved)
    renamed = Dataset(same.items, same.offsets, same.users, Vocabulary(range(5)))
    with pytest.raises(StorageError, match="other items"):
        Recommender(model, renamed)


def test_a_fitted_or_loaded_model_knows_its_vocabularies(tmp_path: Path) -> None:
    data = random_dataset(30, 12, 6)
    other = Dataset(data.items, data.offsets, data.users, Vocabulary(range(1000, 1012)))
    fitted = segue.fit(segue.Markov(), segue.leave_last_out(data))
    loaded = segue.load(fitted.save(tmp_path / "saved"))
    for recommender in (fitted, loaded, pickle.loads(pickle.dumps(loaded)), copy.deepcopy(loaded)):
        with pytest.raises(StorageError, match="other items"):
            Recommender(recommender.model, other)
        with pytest.raises(EvaluationError, match="fitted with other items"):
            segue.evaluate(recommender, segue.leave_last_out(other).test, k=3)
        assert segue.evaluate(recommender, segue.leave_last_out(data).test, k=3)["hr@3"] >= 0
    renamed = Dataset(data.items, data.offsets, Vocabulary(range(500, 530)), data.catalogue)
    assert not fitted.model.personal and segue.evaluate(fitted, segue.leave_last_out(renamed).test, k=3)
    personal = segue.fit(segue.SSEPT(item_width=4, user_width=4), data, training=segue.Training(epochs=1), quiet=True)
    with pytest.raises(EvaluationError, match="fitted with other users"):
        segue.evaluate(personal, segue.leave_last_out(renamed).test, k=3)
