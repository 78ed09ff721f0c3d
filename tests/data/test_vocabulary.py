from __future__ import annotations

import datetime
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.data.vocabulary import Vocabulary, as_ids
from segue.errors import DataError, UnknownIdError

INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
IDS = st.one_of(st.sets(INT64, max_size=20), st.sets(TEXT, max_size=20), st.sets(st.uuids(), max_size=20))


@settings(deadline=None)
@given(ids=IDS, data=st.data())
def test_codes_are_ranks_and_decode_to_the_ids(ids: set[Any], data: st.DataObject) -> None:
    raw = {i if isinstance(i, int) else str(i) for i in ids}
    vocabulary = Vocabulary(data.draw(st.permutations(sorted(ids))))
    assert vocabulary.ids.to_list() == sorted(raw)
    codes = vocabulary.encode(vocabulary.ids)
    assert codes.tolist() == list(range(1, len(ids) + 1))
    some = data.draw(st.lists(st.sampled_from(sorted(ids)), max_size=9)) if ids else []
    expected = [i if isinstance(i, int) else str(i) for i in some]
    assert vocabulary.decode(vocabulary.encode(some)).to_list() == expected


@settings(deadline=None)
@given(ids=st.sets(st.integers(-5, 5)), requested=st.lists(st.none() | st.integers(-8, 8)), text=st.booleans())
def test_unknown_and_missing_ids_are_zero(ids: set[int], requested: list[int | None], text: bool) -> None:
    vocabulary = Vocabulary({str(i) for i in ids} if text else ids)
    ranks = sorted(map(str, ids)) if text else sorted(ids)
    wanted = [str(i) if text and i is not None else i for i in requested]
    assert vocabulary.encode(wanted).tolist() == [ranks.index(i) + 1 if i in ranks else 0 for i in wanted]


@pytest.mark.parametrize(
    "dtype", [np.int8, np.uint16, np.int32, np.int64, np.uint64, np.float16, np.float32, np.float64]
)
def test_whole_numbers_of_any_width_are_the_same_ids(dtype: type) -> None:
    vocabulary = Vocabulary(np.array([30, 10, 20], dtype=dtype))
    assert vocabulary == Vocabulary([10, 20, 30]) and vocabulary.ids.dtype == pl.Int64
    assert vocabulary.encode(np.array([20, 40], dtype=dtype)).tolist() == [2, 0]
    assert vocabulary.encode([dtype(30), 20, 10.0]).tolist() == [3, 2, 1]
    assert vocabulary.encode([dtype(30), dtype(40), dtype(10)]).tolist() == [3, 0, 1]
    assert vocabulary.encode([dtype(30), None, dtype(10)]).tolist() == [3, 0, 1]


def test_digits_as_text_match_integers_but_not_the_other_way_of_writing() -> None:
    assert Vocabulary([5, 70]).encode(["70", "5", "x", "7.5", ""]).tolist() == [2, 1, 0, 0, 0]
    assert Vocabulary(["5", "70"]).encode([70, 5, 6]).tolist() == [2, 1, 0]
    assert Vocabulary([1, 2]).encode([1.5]).tolist() == [0]
    assert Vocabulary([1, 2]).encode(np.array([2.0, np.nan, 1.0])).tolist() == [2, 0, 1]
    assert Vocabulary([4, 2**40]).encode([np.int32(4), np.int64(2**40)]).tolist() == [1, 2]


def test_uuids_and_dates_are_kept_as_text() -> None:
    one = uuid.UUID(int=1)
    assert Vocabulary([one]).encode([uuid.UUID(int=2), one]).tolist() == [0, 1]
    assert Vocabulary([one]).encode([str(one)]).tolist() == [1]
    assert Vocabulary([datetime.date(2024, 5, 1)]).ids.to_list() == ["2024-05-01"]


@pytest.mark.parametrize(
    "ids",
    [[2**63, 2**63 + 1], np.array([2**63, 2**63 + 1], dtype=np.uint64), [2**80, 5], [2**200, 5]],
    ids=["above-int64", "uint64", "above-uint64", "above-int128"],
)
def test_numbers_too_large_for_an_integer_are_kept_as_text(ids: Any) -> None:
    vocabulary = Vocabulary(ids)
    assert vocabulary.ids.dtype == pl.String
    assert sorted(vocabulary.encode(ids)) == [1, 2]


@pytest.mark.parametrize(
    ("ids", "found"),
    [
        ([1, "a"], "number, str"),
        (np.array(["a", 2.5], dtype=object), "number, str"),
        ([uuid.UUID(int=1), "a"], "UUID, str"),
        ([1, uuid.UUID(int=1), None], "UUID, number"),
        ([1, datetime.date(2024, 5, 1)], "date, number"),
        ([np.str_("a"), 1], "number, str"),
        ([True, 2], "bool, number"),
    ],
)
def test_mixed_types_are_an_error_that_names_them(ids: Any, found: str) -> None:
    with pytest.raises(DataError, match=rf"ids mix types \({found}\): make them all of one type"):
        as_ids(ids)


@pytest.mark.parametrize(
    "ids",
    [[2.0**53], [1e300, 2.0], np.array([2.0**60, np.nan]), pl.Series([-(2.0**53)]), [1, 2.0**53], [2**60, 2.0**60]],
)
def test_floats_that_may_have_lost_digits_are_an_error(ids: Any) -> None:
    for ask in (Vocabulary, Vocabulary([1, 2]).encode, Vocabulary([1, 2]).extended):
        with pytest.raises(DataError, match=r"is a float of 2\*\*53 or more, which may have lost digits"):
            ask(ids)


def test_no_integer_passes_through_a_float() -> None:
    near = [9007199254740992, 9007199254740993]
    assert Vocabulary([*near, 1.0]).ids.to_list() == [1, *near]
    assert Vocabulary(pl.Series(list(map(str, near))).cast(pl.Decimal(38, 0))).ids.to_list() == near
    assert Vocabulary(near).encode([*map(str, near), "9007199254740993.0"]).tolist() == [1, 2, 0]


@pytest.mark.parametrize("ids", [[1, 1.5, 2], [1.0, 1.5, 2.0], np.array([1, 1.5, 2]), pl.Series([1.0, 1.5, 2.0])])
def test_an_id_does_not_depend_on_its_neighbours(ids: Any) -> None:
    assert as_ids(ids).to_list() == ["1", "1.5", "2"]
    assert Vocabulary([1, 2]).encode(ids).tolist() == [1, 0, 2]


@pytest.mark.parametrize(
    "text", ["+2", " 2", "2 ", "002", "2.0", "2e0", "2_0", "\u0662", "\n2", "0x2", "-0", "true", ""]
)
def test_integers_as_text_have_one_spelling(text: str) -> None:
    vocabulary = Vocabulary([0, 1, 2, 20, -3])
    assert vocabulary.encode([text, "2", "-3"]).tolist() == [0, 4, 1]
    with pytest.raises(DataError, match="is not an integer"):
        vocabulary.extended([text])
    assert Vocabulary(["2", "20"]).encode([text]).tolist() == [0]


@given(text=st.one_of(st.text("+- 0123456789._e\t٢", max_size=5), st.integers(-30, 30).map(str)))
def test_text_is_an_integer_if_the_integer_is_written_so(text: str) -> None:
    codes = Vocabulary(range(-30, 31)).encode([text])
    assert codes.tolist() == [int(text) + 31 if text in set(map(str, range(-30, 31))) else 0]


def test_missing_values_of_other_libraries_are_null() -> None:
    pd = pytest.importorskip("pandas")
    for ids in (
        pd.Series([2, None], dtype="Int64"),
        pd.Series([2, None]),
        pd.Series([2, None], dtype="Int64").astype(object),
        [2, pd.NA],
        [2, float("nan")],
        [2, pd.NaT],
        pd.array([2, None], dtype="Int64"),
    ):
        assert as_ids(ids).to_list() == [2, None], repr(ids)
    for ids in (pd.Series(["b", None]), pd.Series(["b", float("nan")]), pd.Series(["b", None], dtype="string")):
        assert as_ids(ids).to_list() == ["b", None], repr(ids)
    assert as_ids(pd.Series(["b", "a"], dtype="category")).to_list() == ["b", "a"]
    assert as_ids(pd.Index([3, 4])).to_list() == [3, 4]


def test_tensors_are_columns_of_ids() -> None:
    torch = pytest.importorskip("torch")
    assert as_ids(torch.tensor([3, 4])).to_list() == [3, 4]
    assert as_ids(torch.tensor([3.0, 4.0], requires_grad=True)).to_list() == [3, 4]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([[1, 2], [3]], "an id is a list"),
        ([(1, 2)], "an id is a tuple"),
        ([b"a"], "an id is a bytes"),
        ([{"a": 1}], "an id is a dict"),
        ([np.array(1), np.array(2)], "an id is a ndarray"),
        (np.ones((2, 2)), r"array of shape \(2, 2\)"),
        (pl.Series([[1], [2]]), r"List\(Int64\) are no ids"),
        (pl.Series([{"a": 1}]), "Struct.* are no ids"),
        (pl.Series([b"x"]), "Binary are no ids"),
        (pl.Series([object()], dtype=pl.Object), "object"),
        (3, "'int' holds no ids"),
    ],
)
def test_what_is_no_id_is_an_error(ids: Any, message: str) -> None:
    if message == "object":
        assert as_ids(ids).dtype == pl.String
        return
    with pytest.raises(DataError, match=message):
        as_ids(ids)


def test_numpy_strings_are_strings() -> None:
    assert as_ids([np.str_("b"), "a"]).to_list() == ["b", "a"]
    assert as_ids(np.array(["b", "a"])).to_list() == ["b", "a"]


def test_series_and_arrow_columns_are_taken_as_they_are() -> None:
    pa = pytest.importorskip("pyarrow")
    for ids in (pl.Series(["x", "y"], dtype=pl.Categorical), pa.array(["x", "y"]), pa.chunked_array([["x"], ["y"]])):
        assert Vocabulary(ids).ids.to_list() == ["x", "y"]


@pytest.mark.parametrize(("ids", "message"), [([1, None], "null"), (["a", "b", "a"], "twice")])
def test_a_vocabulary_holds_real_and_unique_ids(ids: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Vocabulary(ids)


def test_code_0_decodes_to_null_and_nothing_to_nothing() -> None:
    vocabulary = Vocabulary(["a", "b"])
    assert vocabulary.decode([0, 2, 0]).to_list() == [None, "b", None]
    assert vocabulary.decode([]).to_list() == []
    assert Vocabulary([]).encode([3, "x"][:1]).tolist() == [0]


def test_required_ids_that_are_unknown_are_listed() -> None:
    vocabulary = Vocabulary(range(10, 20))
    assert vocabulary.require([12, 10], "item").tolist() == [3, 1]
    with pytest.raises(
        UnknownIdError, match=r"unknown item: 1, 2, 3, 4, 5 and 2 more\. Known ones look like 10, 11, 12"
    ):
        vocabulary.require([1, 2, 10, 3, 4, 5, 6, 7], "item")
    with pytest.raises(UnknownIdError, match="unknown user: 'eve'"):
        Vocabulary(["ann"]).require(["eve"], "user")


@pytest.mark.parametrize("ids", [[3, 1, 2], ["b", "ä", "", "a\n\"'"], []])
def test_saved_and_loaded_it_is_the_same(ids: list[Any], tmp_path: Path) -> None:
    vocabulary = Vocabulary(ids)
    vocabulary.save(tmp_path / "ids.parquet")
    loaded = Vocabulary.load(tmp_path / "ids.parquet")
    assert loaded == vocabulary and loaded.ids.to_list() == vocabulary.ids.to_list()
    assert hash(loaded) == hash(vocabulary)


def test_equality_looks_at_type_and_ids() -> None:
    assert Vocabulary([1, 2]) != Vocabulary(["1", "2"])
    assert Vocabulary([1, 2]) != Vocabulary([1, 3])
    assert Vocabulary([1, 2]) != [1, 2]
    assert repr(Vocabulary([1, 2])) == "Vocabulary(2 ids, Int64)"


# ---- ids that arrive later -------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(ids=IDS, arrivals=st.lists(st.lists(st.integers(-9, 9), max_size=6), max_size=4), text=st.booleans())
def test_extending_moves_no_code(ids: set[Any], arrivals: list[list[int]], text: bool) -> None:
    vocabulary = Vocabulary({str(i) for i in ids} if text else {i for i in ids if isinstance(i, int)})
    for batch in arrivals:
        known = vocabulary.ids.to_list()
        new = [i for i in dict.fromkeys(str(i) if text else i for i in batch) if i not in known]
        vocabulary = vocabulary.extended(batch if not text else list(map(str, batch)))
        assert vocabulary.ids.to_list() == known + new
    every = vocabulary.ids.to_list()
    assert vocabulary.encode(every).tolist() == list(range(1, len(every) + 1))
    assert vocabulary.decode(vocabulary.encode(every[::-1])).to_list() == every[::-1]
    assert vocabulary.encode([10, 11] if not text else ["x10", "x11"]).tolist() == [
        every.index(i) + 1 if i in every else 0 for i in ([10, 11] if not text else ["x10", "x11"])
    ]


@settings(deadline=None)
@given(
    ids=st.lists(st.integers(-20, 20), unique=True),
    requested=st.lists(st.none() | st.integers(-30, 30)),
    text=st.booleans(),
)
def test_ids_in_any_order_are_encoded_by_position(ids: list[int], requested: list[int | None], text: bool) -> None:
    def named(values: list[Any]) -> list[Any]:
        return [None if value is None else str(value) for value in values] if text else values

    vocabulary = Vocabulary.in_order(named(ids))
    assert vocabulary.encode(named(requested)).tolist() == [ids.index(i) + 1 if i in ids else 0 for i in requested]
    assert vocabulary.is_sorted == (named(ids) == sorted(named(ids)))


@pytest.mark.parametrize("ids", [[3, 1, 2], ["b", "ä", "", "a"]])
def test_an_extended_vocabulary_is_saved_and_loaded_in_its_order(ids: list[Any], tmp_path: Path) -> None:
    vocabulary = Vocabulary(ids[:-1]).extended(ids)
    assert vocabulary.ids.to_list() == [*sorted(ids[:-1]), ids[-1]] and not vocabulary.is_sorted
    vocabulary.save(tmp_path / "ids.parquet")
    loaded = Vocabulary.load(tmp_path / "ids.parquet")
    assert loaded == vocabulary and hash(loaded) == hash(vocabulary) and loaded.to_bytes() == vocabulary.to_bytes()
    assert vocabulary != Vocabulary(ids) and vocabulary.to_bytes() != Vocabulary(ids).to_bytes()


def test_nothing_new_leaves_the_vocabulary_as_it_is() -> None:
    vocabulary = Vocabulary([4, 5])
    assert vocabulary.extended([5, 4.0]) is vocabulary
    assert vocabulary.extended(["4"]) is vocabulary and vocabulary.extended([]) is vocabulary


def test_arriving_ids_take_the_type_of_the_vocabulary() -> None:
    assert Vocabulary([5, 70]).extended(["9", "5", "6", "9"]).ids.to_list() == [5, 70, 9, 6]
    assert Vocabulary(["5", "70"]).extended([9, 5]).ids.to_list() == ["5", "70", "9"]
    assert Vocabulary([]).extended(["b", "a", "b"]).ids.to_list() == ["b", "a"]


@pytest.mark.parametrize("ids", [["6", "x7"], ["7.5"], [7.5], [2**70]])
def test_integers_cannot_be_extended_by_text(ids: list[Any]) -> None:
    found = str(ids[-1])
    with pytest.raises(DataError, match=rf"the id '{found}' is not an integer .* prepare the whole log again"):
        Vocabulary([5, 70]).extended(ids)


def test_a_missing_id_cannot_arrive() -> None:
    with pytest.raises(DataError, match="null"):
        Vocabulary([1]).extended([2, None])


@pytest.mark.parametrize(("ids", "message"), [([2, None], "null"), (["b", "a", "b"], "twice")])
def test_ids_in_order_are_real_and_unique(ids: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Vocabulary.in_order(ids)


@pytest.mark.parametrize("arrived", [[], ["zoo", "aaa", "id-0500x"]])
def test_few_text_ids_of_many_are_found_as_all_of_them_are(arrived: list[str]) -> None:
    words = Vocabulary([f"id-{number:04}" for number in range(900)]).extended(arrived)
    asked = ["id-0007", "id-0899", "nobody", None, "", "zzz", "id-0000", "zoo", "id-0500x"]
    whole = words.encode(words.ids)
    assert whole.tolist() == list(range(1, len(words) + 1))
    expected = [0 if one is None or one not in set(words.ids) else words.ids.to_list().index(one) + 1 for one in asked]
    assert words.encode(asked).tolist() == expected
    assert [words.encode([one]).item() for one in asked] == expected


@settings(deadline=None)
@given(
    ids=st.one_of(st.lists(INT64, max_size=9, unique=True), st.lists(TEXT, max_size=9, unique=True)),
    requested=st.one_of(INT64, st.integers(), TEXT, st.integers(-3, 3).map(str)),
)
def test_the_code_of_one_id_is_that_of_a_list_of_one(ids: list[Any], requested: int | str) -> None:
    vocabulary = Vocabulary.in_order(ids)
    for raw_id in [requested, *ids]:
        assert vocabulary.code_of(raw_id) == vocabulary.encode([raw_id])[0]


@pytest.mark.parametrize("ids", [[30, 10, 20], ["tea", "jam", "milk"]])
def test_a_few_codes_are_decoded_as_many_are(ids: list[Any]) -> None:
    vocabulary, codes = Vocabulary.in_order(ids), np.array([2, 3, 2], dtype=np.int64)
    assert vocabulary.decode_few(codes) == vocabulary.decode(codes).to_list() == [ids[1], ids[2], ids[1]]
    forgetful = vocabulary.without([2])
    assert forgetful.decode_few(codes) == forgetful.decode(codes).to_list() == [None, ids[2], None]
