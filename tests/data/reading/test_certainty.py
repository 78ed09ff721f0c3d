"""Nothing silently wrong: layouts, times, ids and quotes of logs from elsewhere, read rightly or asked about."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import warnings
from decimal import Decimal
from pathlib import Path

import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.data.preparing.prepare import prepare
from segue.data.reading.read import read
from segue.errors import ColumnError, ConfigError, DataError, SegueError

T = 1_577_836_800
DAY = 86_400_000_000
HEADER = "user_id,item_id,timestamp\n"
ZERO = T * 1_000_000


# ---- layouts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        (f"1,{T},10\n1,{T + 5},11\n2,{T},10\n", [(1, 10, T), (1, 11, T + 5), (2, 10, T)]),
        (f"{T},1,10\n{T + 5},1,11\n", [(1, 10, T), (1, 11, T + 5)]),
        ("2020-01-01,1,10\n2020-01-02,1,11\n", [(1, 10, ZERO), (1, 11, ZERO + DAY)]),
        ("a\t2020-01-01T00:00:00Z\tx\nb\t2020-01-02T00:00:00Z\ty\n", [("a", "x", ZERO), ("b", "y", ZERO + DAY)]),
    ],
)
def test_a_time_among_the_first_two_of_three_columns_is_found(write_file, text, rows):
    assert read(write_file("x.csv", text)).collect().rows() == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "1,2014-04-07T10:51:09.277Z,214536502,0\n1,2014-04-07T10:54:09.868Z,214536500,0\n",
            r"first two columns, found 0: numbers or ids \(1\), 1: times \(2014.*for example user=0, item=2, time=1",
        ),
        ("7\t2010-10-19T23:55:27Z\t30.2\t-97.7\t22847\n7\t2010-10-18T22:17:43Z\t30.2\t-97.7\t420315\n", "1: times"),
        (f"1,{T}\n1,{T + 5}\n", r"1: times \(1577836800\)"),
        (f"{T},{T},3\n{T},{T + 1},4\n", "0: times"),
        ("1:\n7,3,2005-09-06\n8,5,2005-05-13\n2:\n7,4,2005-09-07\n", r'lines such as "1:".*Netflix prize'),
        ("a1:\n" + "7,3,2005-09-06\n8,5,2005-05-13\n9,4,2005-09-07\n" * 9, "Netflix prize"),
        ("1 2005-09-06 3\n2 4\n", "some hold dates"),
        ("1,2:3,4:5\n2,3:4\n", "items look like pairs"),
        ("1: 7 8 9\n2: 7\n", "users end with a colon"),
        ("# some comment\n1 2 3\n2 3 4 5\n2 3\n", "like comments"),
        ("# a comment\n1 2 3\n2 3\n", r'"# a comment" looks like a comment'),
        (f"% by x, y\n1,2,{T}\n1,3,{T}\n", r'"% by x, y" looks like a comment'),
        ("1 5.0 3\n2 4.0\n3 2 1 1\n", "decimal point"),
        ("1 2 3\n4 5\n1 7 8 9\n", 'several begin with "1"'),
        (f"1 10 {T} 11 {T + 5}\n2 10 {T}\n3 12 {T}\n4 5 {T} 6 {T} 7 {T}\n5 1\n", "numbers that can be times"),
    ],
)
def test_a_layout_that_is_not_certain_is_asked_for(write_file, text, message):
    with pytest.raises(DataError, match=message):
        read(write_file("x.txt", text))


def test_a_layout_that_is_given_is_taken(write_file):
    text = "1,2014-04-07T10:51:09Z,214536502,0\n1,2014-04-07T10:54:09Z,214536500,0\n"
    log = read(write_file("x.csv", text), user=0, item=2)
    assert log.columns["time"] == "1" and log.collect()["item"].to_list() == [214536502, 214536500]
    assert read(write_file("x.txt", "1 2 3\n1 7 8 9\n"), format="user-lines").rows == 5


LIST = "user_id:token\titem_id_list:token_seq\titem_id:token\n1\t1 2 3\t4\n2\t1 2\t3\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.inter", LIST),
        ("x.csv", "user_id,item_ids,item_id\n1,1 2 3,4\n"),
        ("x.csv", 'user_id,items\n1,"[1, 2]"\n'),
        ("x.jsonl", '{"user_id": 1, "item_id_list": [1, 2], "item_id": 3}\n'),
    ],
)
def test_lists_of_items_are_not_dropped(write_file, name, text):
    with pytest.raises(ColumnError, match=r"seems to hold lists of items\. Expected one interaction per row"):
        read(write_file(name, text))


def test_lists_of_items_in_frames_and_typed_sequences(write_file):
    frame = pl.DataFrame({"user": [1], "item_list": [[1, 2]], "item": [3]})
    with pytest.raises(ColumnError, match="lists of items"):
        read(frame)
    assert read(frame, item="item").rows == 1
    assert read(write_file("x.inter", LIST), item="item_id").collect()["item"].to_list() == [4, 3]
    with pytest.raises(ColumnError, match=r'"item_id" \(item\) holds several values per row'):
        read(write_file("y.inter", "user_id:token\titem_id:token_seq\n1\t1 2\n"))
    tagged = f"user_id:token\titem_id:token\ttags:token_seq\ttimestamp:float\n1\t1\ta b\t{T}\n"
    assert read(write_file("z.inter", tagged)).rows == 1


# ---- times -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["purchased_on", "t_dat", "TRANSACTION_DT", "eventdate", "InvoiceDate", "when", "x", "moment of the purchase"],
)
def test_the_only_column_of_dates_is_the_time(write_file, name):
    text = f"user_id,item_id,{name}\n1,30,2020-01-03\n1,10,2020-01-01\n1,20,2020-01-02\n"
    path = write_file("x.csv", text)
    assert read(path).columns["time"] == name
    assert prepare(path).to_frame()["item"].to_list() == [10, 20, 30]


def test_a_column_of_times_is_found_in_every_format(write_file):
    records = [{"user": "a", "item": n, "seen": f"2020-01-0{4 - n}T00:00:00Z", "price": 3} for n in (1, 2, 3)]
    expected = [ZERO + 2 * DAY, ZERO + DAY, ZERO]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    for name, text in (("x.jsonl", lines), ("x.json", json.dumps(records)), ("y.json", lines.replace('"', "'"))):
        assert read(write_file(name, text)).collect()["time"].to_list() == expected
    assert read(pl.DataFrame(records)).collect()["time"].to_list() == expected
    moments = [dt.datetime(2020, 1, 3), dt.datetime(2020, 1, 2), dt.datetime(2020, 1, 1)]
    assert read(pd.DataFrame({"user": [1] * 3, "item": [1, 2, 3], "bought": moments})).columns["time"] == "bought"
    numbers = f"user_id,item_id,event_ts\n1,30,{T + 3}\n1,10,{T}\n"
    assert read(write_file("n.csv", numbers)).collect()["time"].to_list() == [T + 3, T]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user_id,item_id,a,b\n1,3,2020-01-03,2020-01-09\n1,1,2020-01-01,2020-01-05\n", '"a" and "b" could each be'),
        ("user_id,item_id,date,time\n1,3,2020-01-03,12:00\n1,1,2020-01-01,13:00\n", '"date" and "time" could each be'),
        ("user_id,item_id,birthdate\n1,3,1980-01-03\n2,1,1990-01-01\n", "its name says something else.*time=False"),
        (
            "user_id,item_id,x\n1,3,2020-01-03\n1,4,2020-01-03\n2,3,2020-01-04\n2,5,2020-01-04\n",
            "each user has one value of it",
        ),
        (f"user_id,item_id,order\n1,3,{T}\n1,4,{T + 9}\n", '"order" holds numbers that can be times'),
        ("user_id,item_id,when\n1,3,01/02/2020\n1,4,03/04/2020\n", "the day cannot be told from the month"),
    ],
)
def test_times_that_are_not_certain_are_asked_for(write_file, text, message):
    path = write_file("x.csv", text)
    with pytest.raises(ColumnError, match=message):
        read(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(path, time=False).collect().columns == ["user", "item"]


def test_the_finer_of_two_times_is_taken(write_file):
    text = "user_id,item_id,date,created_at\n1,3,2020-01-03,2020-01-03T05:06:07\n1,1,2020-01-01,2020-01-01T00:00:09\n"
    assert read(write_file("x.csv", text)).columns["time"] == "created_at"
    text = f"user_id,item_id,timestamp,purchased\n1,3,20200101,{T + 50}\n1,1,20200101,{T + 9}\n"
    assert read(write_file("y.csv", text)).columns["time"] == "purchased"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.csv", "user_id,item_id,price\n1,30,3\n"),
        ("x.csv", "1,30\n1,20\n"),
        ("x.txt", "1 2 3\n2 3\n"),
        ("x.jsonl", '{"user": 1, "item": 2}\n'),
    ],
)
def test_a_line_says_that_no_time_is_read(write_file, name, text):
    path = write_file(name, text)
    with pytest.warns(UserWarning, match="no times are read.*the option time") as caught:
        read(path)
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="no times are read"):
        prepare(path)


@pytest.mark.parametrize(
    ("texts", "values"),
    [
        (("20200102100000", "20200101100000"), [ZERO + DAY + 36_000_000_000, ZERO + 36_000_000_000]),
        (("202001021000", "202001011000"), [ZERO + DAY + 36_000_000_000, ZERO + 36_000_000_000]),
        (("2020010210", "2020010110"), [ZERO + DAY + 36_000_000_000, ZERO + 36_000_000_000]),
        (("20200102", "20200101"), [ZERO + DAY, ZERO]),
        (("202002", "202001"), [ZERO + 31 * DAY, ZERO]),
        (("20200102100000.0", "20200101100000.0"), [ZERO + DAY + 36_000_000_000, ZERO + 36_000_000_000]),
        (("12/31/2019 8:26", "1/2/2020 0:00"), [ZERO - DAY + 506 * 60_000_000, ZERO + DAY]),
        (("31.12.2019", "01.01.2020"), [ZERO - DAY, ZERO]),
        (("2020/01/02", "2020/01/01"), [ZERO + DAY, ZERO]),
        (("Thu Jan 02 00:00:00 +0000 2020", "Wed Jan 01 01:00:00 +0100 2020"), [ZERO + DAY, ZERO]),
    ],
)
def test_dates_of_every_form(write_file, texts, values):
    text = HEADER + "".join(f"1,{item},{time}\n" for item, time in enumerate(texts))
    log = read(write_file("x.csv", text))
    assert (log.collect()["time"].to_list(), log.time_unit) == (values, "us")


def test_dates_written_as_numbers_in_frames():
    frame = {"user": [1, 1], "item": [1, 2], "time": [20200102100000, 20200101100000]}
    expected = [ZERO + DAY + 36_000_000_000, ZERO + 36_000_000_000]
    assert read(pl.DataFrame(frame)).collect()["time"].to_list() == expected
    assert read(pd.DataFrame(frame).astype({"time": float})).collect()["time"].to_list() == expected


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (("1", "2", "1255352473"), r"line 4: the time .* is '1255352473'.*several units.*time_unit="),
        ((str(T), str(T + 1), "0"), r"line 4: the time .* is '0'.*time_unit="),
        ((str(T), str(T + 1), f"{T}000"), r"line 4: the time .* is '1577836800000'"),
        (("20200102", "20200103", "0"), r"line 4: the time .* is '0'; expected a date like 20200102"),
        (("13222310400000000",), r"before 1970 or after 2100, such as '13222310400000000'.*time_unit=.*time=False"),
        (("-1577836800",), "before 1970 or after 2100"),
        (("0001-01-01", "0001-01-02", "2020-01-01"), "before 1970 or after 2100, such as '0001-01-01'"),
        (("9999-12-31",), "before 1970 or after 2100"),
    ],
)
def test_numbers_that_are_no_epoch_are_an_error(write_file, times, message):
    text = HEADER + "".join(f"1,{item},{time}\n" for item, time in enumerate(times))
    with pytest.raises(DataError, match=message):
        read(write_file("x.csv", text))


def test_steps_are_times_and_a_given_unit_is_taken(write_file):
    assert read(write_file("x.csv", HEADER + "1,1,3\n1,2,1\n")).collect()["time"].to_list() == [3, 1]
    mixed = write_file("y.csv", HEADER + f"1,1,0\n1,2,{T}\n")
    assert read(mixed, time_unit="s").collect()["time"].to_list() == [0, T]


# ---- quotes ----------------------------------------------------------------------------------------------------------

STRAY = f'user_id\titem_id\ttimestamp\ttitle\n1\t10\t{T}\tA\n1\t11\t{T}\t"Open\n1\t12\t{T}\tB\n2\t10\t{T}\tSide 12"\n'
STRAY += f"2\t11\t{T}\tD\n"


@pytest.mark.parametrize("many", [0, 3000])
def test_stray_quotes_swallow_no_rows(write_file, many):
    head, *rest = STRAY.splitlines(keepends=True)
    filler = f"9\t9\t{T}\tx\n" * many
    log = read(write_file("x.tsv", head + filler + "".join(rest)))
    assert log.collect().select("user", "item").rows()[many:] == [(1, 10), (1, 11), (1, 12), (2, 10), (2, 11)]


@pytest.mark.parametrize(
    "titles",
    [
        ('"Mad" Max', "B"),
        ('Mad "Max"', '"B"'),
        ('12" vinyl', '7" single'),
        ('"A, B"', '"Mad" Max', "C"),
        ('"A\nB, C"', '"say ""hi"""', "x"),
        ('"A, B"', '12" vinyl', '"two\nlines, three"'),
        ('"A', "B", 'C"', "D"),
    ],
)
@pytest.mark.parametrize("many", [0, 2500])
def test_all_rows_whatever_the_quotes(write_file, titles, many):
    lines = [f"9,9,{T},x\n"] * many + [f"1,{item},{T},{title}\n" for item, title in enumerate(titles)]
    log = read(write_file("x.csv", "user_id,item_id,timestamp,title\n" + "".join(lines)))
    assert log.collect()["item"].to_list()[many:] == list(range(len(titles)))
    assert log.dropped == 0


@settings(max_examples=100)
@given(st.lists(st.text("ab,\"\n'; \t", max_size=6), min_size=1, max_size=8), st.sampled_from(",;\t|"))
def test_what_the_csv_module_writes_is_read_as_it_reads_it(tmp_path_factory, titles, separator):
    import csv

    path = tmp_path_factory.mktemp("csv") / "x.csv"
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream, delimiter=separator)
        writer.writerow(["user_id", "item_id", "timestamp", "title"])
        writer.writerows([1, number, T, title] for number, title in enumerate(titles))
    try:
        log = read(path)
    except DataError as error:
        assert "Pass quote=" in str(error)  # each line of a field could be a row
        log = read(path, quote='"')
    assert log.collect()["item"].to_list() == list(range(len(titles)))


def test_quotes_around_ids_are_removed_and_open_ones_are_asked_for(write_file):
    text = f'user_id,item_id,timestamp\n"1","a, b",{T}\n"2","say ""hi""",{T}\n3,"c",{T}\n'
    assert read(write_file("x.csv", text)).collect().select("user", "item").rows() == [
        (1, "a, b"), (2, 'say "hi"'), (3, "c"),
    ]  # fmt: skip
    open_quote = write_file("y.csv", f'user_id,item_id,timestamp\n1,"a,{T}\n2,b,{T}\n')
    with pytest.raises(DataError, match=r"line 2: a quote mark is opened and not closed: .*quote='none'"):
        read(open_quote)
    assert read(open_quote, quote="none").collect()["item"].to_list() == ['"a', "b"]
    single = write_file("z.csv", f"user_id,item_id,timestamp\n1,'a, b',{T}\n2,c,{T}\n")
    assert read(single, quote="'").collect()["item"].to_list() == ["a, b", "c"]
    doubtful = write_file("d.csv", f'1,"10,{T},5\n1,11",{T},5\n2,"a, b",{T},5\n')
    with pytest.raises(DataError, match=r"lines 1 to 2: .* each of these lines could be a row\. Pass quote="):
        read(doubtful, user=0, item=1)


def test_rows_with_quotes_of_their_own_are_not_swallowed_by_an_open_quote(write_file):
    header = "user_id,item_id,timestamp,title\n"
    swallowed = f'{header}1,10,{T},"two\n2,11,{T},"12"" vinyl"\n3,12,{T},tea\n;\nlines"\n4,13,{T},x\n'
    with pytest.raises(DataError, match="line 2: a quote mark is opened and not closed"):
        read(write_file("x.csv", swallowed))
    kept = f'{header}1,10,{T},"two\n"",x,""\nsay ""hi"" to\nlines"\n4,13,{T},"12"" vinyl"\n'
    assert read(write_file("y.csv", kept)).collect()["item"].to_list() == [10, 13]


@pytest.mark.parametrize("quote", ["", "ab", "\n", "é"])
def test_quote_is_one_character(write_file, quote):
    with pytest.raises(ConfigError, match="quote="):
        read(write_file("x.csv", HEADER + f"1,2,{T}\n"), quote=quote)


# ---- ids -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [("13085", "13085.0"), ("13085.0", "13085")])
@pytest.mark.parametrize("word", [None, "ann"])
def test_an_id_is_one_id_in_every_part(write_file, order, word):
    for number, text in enumerate(order):
        more = f"{word},1,{T}\n" if word else ""
        path = write_file(f"logs/{number}.csv", HEADER + f"{text},{number},{T}\n" + more)
    assert set(read(path.parent).collect()["user"]) == ({13085} if word is None else {"13085", word})
    assert len(prepare(path.parent).users) == (1 if word is None else 2)


def test_ids_that_change_late(write_file):
    late = HEADER + f"7,1,{T}\n" * 3000
    assert read(write_file("a.csv", late + f"7.0,1,{T}\n")).collect()["user"].unique().to_list() == [7]
    assert read(write_file("b.csv", late + f"7 ,1,{T}\n")).collect()["user"].unique().to_list() == [7]
    words = HEADER + f"ann,1,{T}\n" * 3000
    path = write_file("c.csv", words + f"7.0,1,{T}\n7,1,{T}\nann ,1,{T}\n")
    assert set(read(path).collect()["user"]) == set(prepare(path).users.ids) == {"ann", "7"}
    versions = write_file("d.csv", HEADER + f"1.0,1,{T}\n1.5,1,{T}\n")
    assert set(read(versions).collect()["user"]) == {"1.0", "1.5"}


@pytest.mark.parametrize("word", ["NULL", "null", "NA", "N/A", "nan", "NaN", "None", r"\N", "<NA>", "", " "])
def test_a_missing_id_among_integers_is_missing(write_file, word):
    path = write_file("x.csv", HEADER + f"1,1,{T}\n{word},2,{T}\n3,3,{T}\n")
    with pytest.raises(DataError, match=r"line 3: the user .* is missing"):
        read(path)
    log = read(path, bad_rows="drop")
    assert (log.collect()["user"].to_list(), log.dropped) == ([1, 3], 1)


@pytest.mark.parametrize("word", ["NULL", "NA", "None"])
def test_a_missing_id_among_words_is_a_warning(write_file, word):
    path = write_file("x.csv", HEADER + f"ann,1,{T}\n{word},2,{T}\n")
    for take in (read, prepare):
        with pytest.warns(UserWarning, match=r'column "user_id" \(user\) holds a word such as NULL or NA'):
            take(path)


BIG = 2**53


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (pl.Series([Decimal(BIG + 1), Decimal(BIG)], dtype=pl.Decimal(38, 0)), [BIG + 1, BIG]),
        (pl.Series([Decimal(10**25), Decimal(10**25 + 1)], dtype=pl.Decimal(38, 0)), [str(10**25), str(10**25 + 1)]),
        (pl.Series([Decimal("1.00"), Decimal("2.00")], dtype=pl.Decimal(10, 2)), [1, 2]),
        (pl.Series([BIG - 1.0, 5.0]), [BIG - 1, 5]),
        (pd.Series([BIG + 1, 2.0], dtype=object), [BIG + 1, 2]),
    ],
)
def test_ids_are_exact(ids, expected):
    frame = pd.DataFrame if isinstance(ids, pd.Series) else pl.DataFrame
    assert read(frame({"user": ids, "item": [1, 2]}), time=False).collect()["user"].to_list() == expected


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (pl.Series([float(BIG), 5.0]), r"expected a whole number below 2\^53 .*lost digits"),
        (pl.Series([2.0**24, 5.0], dtype=pl.Float32), r"below 2\^24"),
        (pl.Series([1.5, 5.0]), "is 1.5; expected a whole number"),
        (pl.Series([Decimal("1.50"), Decimal("2.00")], dtype=pl.Decimal(10, 2)), "expected an integer id"),
        (pl.Series([f"{BIG}.0", "5"]), "without lost digits"),
        (pl.Series(["1e+16", "5"]), "without lost digits"),
        (pl.Series(["5"] * 3000 + ["1.2E16"]), "row 3001: .* is '1.2E16'; expected an integer id"),
    ],
)
def test_ids_that_have_lost_digits_are_an_error(ids, message):
    with pytest.raises(DataError, match=message):
        read(pl.DataFrame({"user": ids, "item": [1] * len(ids)}), time=False)


def test_floats_of_json_that_have_lost_digits_are_an_error(write_file):
    with pytest.raises(ColumnError, match="floats from 2"):
        read(write_file("x.jsonl", f'{{"user": {BIG + 1}.0, "item": 1}}\n{{"user": {BIG}.0, "item": 1}}\n'))


def test_parts_of_other_types_are_read_by_the_same_rule(tmp_path: Path):
    frames = [
        pl.DataFrame({"user": [BIG + 1, 7], "item": ["a", "b"]}),
        pl.DataFrame({"item": ["a", "b"], "user": [7.0, 8.0]}),
        pl.DataFrame({"user": ["9", "7.0"], "item": ["a", "b"]}),
    ]
    for number, frame in enumerate(frames):
        frame.write_parquet(tmp_path / f"{number}.parquet")
    assert read(tmp_path, time=False).collect()["user"].to_list() == [BIG + 1, 7, 7, 8, 9, 7]


@given(
    st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3), min_size=1, max_size=6),
    st.data(),
)
def test_integers_are_the_same_in_every_spelling(tmp_path_factory, ids, data):
    folder = tmp_path_factory.mktemp("ids")
    written = [f"{one}.0" if abs(one) < BIG and data.draw(st.booleans()) else str(one) for one in ids]
    cut = data.draw(st.integers(0, len(ids)))
    for name, part in (("a.csv", written[:cut]), ("b.csv", written[cut:])):
        (folder / name).write_text(HEADER + "".join(f"{text},1,{T}\n" for text in part))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert read(folder).collect()["user"].to_list() == ids


# ---- parts of a folder -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("empty", [b"", b"\n \n", HEADER.encode(), b"\xef\xbb\xbf"])
@pytest.mark.parametrize("first", [True, False])
def test_empty_parts_are_skipped(write_file, empty, first):
    write_file("logs/a.csv" if first else "logs/b.csv", empty)
    path = write_file("logs/b.csv" if first else "logs/a.csv", HEADER + f"1,2,{T}\n")
    with pytest.warns(UserWarning, match=rf"{'a' if first else 'b'}\.csv: skipped, since no interactions"):
        assert read(path.parent).collect().rows() == [(1, 2, T)]


@pytest.mark.parametrize(
    ("suffix", "empty", "full"),
    [
        ("csv.gz", gzip.compress(b"", mtime=0), gzip.compress(HEADER.encode() + f"1,2,{T}\n".encode(), mtime=0)),
        ("csv.gz", b"", gzip.compress(HEADER.encode() + f"1,2,{T}\n".encode(), mtime=0)),
        ("jsonl", b"", f'{{"user": 1, "item": 2, "time": {T}}}\n'.encode()),
        ("json", b"[]", f'[{{"user": 1, "item": 2, "time": {T}}}]'.encode()),
        ("txt", b"user_id,time,session_length,session_items\n", b"user_id,time,session_length,session_items\n1,5,1,2"),
    ],
)
def test_empty_parts_of_every_format_are_skipped(tmp_path: Path, suffix, empty, full):
    (tmp_path / f"a.{suffix}").write_bytes(empty)
    (tmp_path / f"b.{suffix}").write_bytes(full)
    with pytest.warns(UserWarning, match="skipped"):
        assert read(tmp_path).rows == 1


def test_empty_parquet_parts_and_folders_of_empty_parts(tmp_path: Path, write_file):
    frame = pl.DataFrame({"user": [1], "item": [2], "time": [T]})
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "a.parquet").touch()
    frame.write_parquet(tmp_path / "parts" / "b.parquet")
    frame.clear().write_parquet(tmp_path / "parts" / "c.parquet")
    with pytest.warns(UserWarning, match=r"a\.parquet: skipped"):
        assert read(tmp_path / "parts").collect().rows() == [(1, 2, T)]
    write_file("empty/a.csv", "")
    with pytest.raises(DataError, match="is empty"):
        read(write_file("empty/b.csv", "").parent)
    write_file("mixed/a.csv", HEADER + f"1,2,{T}\n")
    with pytest.raises(DataError, match=r'b\.csv begins with "2,2.*files of one log have the same header'):
        read(write_file("mixed/b.csv", f"2,2,{T}\n").parent)


# ---- messages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"user":1,"item":2,"rating":NaN}\n', r"line 1: NaN and Infinity are not JSON.*Write null"),
        ('{"user":1,"item":2}\n{"user":1,"item":3,"p":-Infinity}\n', r"line 2: NaN and Infinity are not JSON"),
        ('[{"user":1,"item":2},{"user":1,"item":NaN}]', r"object 2 holds NaN or Infinity.*Write null"),
        ('{\n  "user": 1,\n  "item": 2\n}\n', r"expected a JSON object per line.*over several lines.*jq -c"),
        ('{"user":1,"item":2},\n{"user":1,"item":3},\n', r"Remove the commas between the lines"),
        ('{"user":1,"item":2}{"user":1,"item":3}\n', r"Write each object on its own line"),
        ('{"data": [{"user": 1, "item": 2}]}\n', r"one object, whose fields are lists or objects \(data\)"),
        ('{"user":{"0":1},"item":{"0":5}}', r"orient='records'"),
        ("{'user':1,'item':2}\n{'user':1,'item':nan}\n", "line 2: NaN and Infinity"),
        ("[" * 3000 + "\n", "object 1 is damaged"),
        ('{"user":1,"item":2}\n' + "[" * 3000 + "\n", "line 2: the line is nested too deeply"),
        ('{"user":1,"item":2,"x":' + "[" * 9999 + "]" * 9999 + "}\n", "nested too deeply"),
        ("{1:2}\n{1:3}\n", r"no column looks like the user\. It has: 1"),
        ("{'a':1,'b':2}\n", r"no column looks like the user\. It has: a, b"),
        ("{'user':1,'item':2}\n{'us':3,'item':2}\n", r"line 2: the user .* is missing"),
    ],
)
def test_json_that_cannot_be_read_says_why(write_file, text, message):
    with pytest.raises(DataError, match=message):
        read(write_file("x.json", text), time=False)


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n"])
@pytest.mark.parametrize(
    ("name", "text", "rows"),
    [
        ("x.csv", f"1,10,{T}\n1,11,{T}\n2,10,{T}\n", 3),
        ("x.csv", HEADER + f"1,10,{T}\n1,11,{T}\n", 2),
        ("x.csv", HEADER + f'1,"10",{T}\n1,"11",{T}\n', 2),
        ("x.txt", "1 2 3\n2 5\n3 7 8 9\n", 6),
        ("x.jsonl", '{"user": 1, "item": 2}\n{"user": 2, "item": 2}\n', 2),
        ("x.json", "{'user': 1, 'item': 2}\n{'user': 2, 'item': 2}\n", 2),
        ("x.txt", "user_id,time,session_length,session_items\n1,5,2,7,8\n2,5,1,7\n", 3),
    ],
)
def test_every_end_of_line(write_file, name, text, rows, end):
    assert read(write_file(name, text.replace("\n", end))).rows == rows


def test_a_lone_carriage_return_far_below(write_file):
    assert read(write_file("x.csv", HEADER + f"1,10,{T}\n" * 90_000 + f"1,10,{T}\r1,11,{T}\n")).rows == 90_002
    lines = "".join(f"{user} 10{' 11' * (user % 2)}\n" for user in range(200_000))
    assert read(write_file("x.txt", lines + "x 1\ry 2 3\n"), time=False).rows == 300_003


@pytest.mark.parametrize("text", [f"1,1\0000,{T}\n", f"1,10,{T}\n" * 90_000 + f"1,1\0000,{T}\n"])
def test_a_nul_is_named(write_file, text):
    with pytest.raises(DataError, match=r"binary file|line 90002 holds a NUL character"):
        read(write_file("x.csv", HEADER + text))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.csv", HEADER + f"1,2,{T}\n"),
        ("x.jsonl", f'{{"user": 1, "item": 2, "time": {T}}}\n'),
        ("x.json", f"{{'user': 1, 'item': 2, 'time': {T}}}\n"),
        ("y.json", f'[{{"user": 1, "item": 2, "time": {T}}}]'),
    ],
)
def test_a_byte_order_mark_is_no_part_of_the_content(write_file, name, text):
    assert read(write_file(name, "\ufeff" + text)).collect().rows() == [(1, 2, T)]


def test_lines_end_only_where_lines_end(write_file):
    text = f"1,a\u2028b,{T}\n1,c\x0bd,{T}\n1,e\x85f,{T}\n"
    assert read(write_file("x.csv", text)).collect()["item"].to_list() == ["a\u2028b", "c\x0bd", "e\x85f"]
    long = "b" * 3_000_000
    assert read(write_file("y.csv", HEADER + f"1,{long},{T}\n1,c,{T}\n")).rows == 2


def test_columns_may_have_any_name(write_file):
    frame = pl.DataFrame({"user": [1], "item": [2], "#row": [3], "#line": [4], "#broken": [True]})
    assert read(frame, time=False).rows == 1
    text = f"user_id,item_id,timestamp,#row,#line,#broken,#extra,#parts,#suspect\n1,2,{T},1,1,1,1,1,1\n"
    assert read(write_file("x.csv", text)).rows == 1


@pytest.mark.parametrize(
    "options",
    [
        {"separator": ""}, {"separator": "\n"}, {"separator": '"'}, {"separator": 5}, {"format": 5}, {"header": "yes"},
        {"time_unit": 5}, {"user": 1.5}, {"item": ["a"]}, {"quote": 5}, {"bad_rows": 5}, {"bad_rows": None},
    ],
)  # fmt: skip
def test_options_of_another_type_are_named(write_file, options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        read(write_file("x.csv", HEADER + f"1,2,{T}\n"), **options)


@pytest.mark.parametrize("source", [None, 5, b"x", [], {}, "a" * 5000, "a\0b", 1.5])
def test_sources_that_are_none(source):
    with pytest.raises(SegueError):
        read(source)


def test_names_of_files_that_are_not_utf8(tmp_path: Path):
    path = Path(f"{tmp_path}/a\udce9.csv")
    path.write_text(HEADER + f"1,2,{T}\n")
    assert read(path).rows == 1


def test_prepare_takes_the_options_of_read(write_file):
    frame = pl.DataFrame({"u": [1, 2], "i": [3, 4], "day": ["2020-01-01", "2020-01-02"]})
    assert prepare(frame, user="u", item="i").to_frame()["user"].to_list() == [1, 2]
    path = write_file("x.txt", "1;2;3;oops\n1;3;4;20200101\n")
    dataset = prepare(path, user=0, item=1, time=3, rating=2, separator=";", header=False, bad_rows="drop")
    assert (dataset.n_interactions, dataset.metadata["bad_rows_dropped"]) == (1, 1)
    with pytest.raises(ConfigError, match=r"the source is a Log, which is read already: pass user to segue\.read"):
        prepare(read(frame, user="u", item="i"), user="u")
