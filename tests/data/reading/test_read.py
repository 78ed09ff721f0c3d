from __future__ import annotations

import gc
import gzip
import json
from pathlib import Path

import polars as pl
import pytest

from segue.data.reading.files import Scratch
from segue.data.reading.read import read
from segue.errors import ColumnError, ConfigError, DataError, SegueError

MOVIELENS = "196\t242\t3\t881250949\n186\t302\t3\t891717742\n22\t377\t1\t878887116\n"
REVIEWS_2014 = [
    {"reviewerID": "A2SUAM1J3GNN3B", "asin": "0000013714", "overall": 5.0, "unixReviewTime": 1252800000},
    {"reviewerID": "A14VAT5EAX3D9S", "asin": "B000013714", "overall": 4.0, "unixReviewTime": 1252800001},
]
REVIEWS_2023 = [
    {"user_id": "AFK", "asin": "B1", "parent_asin": "B0", "rating": 4.0, "timestamp": 1588687728923, "images": []},
    {"user_id": "AFL", "asin": "B2", "parent_asin": "B9", "rating": 5.0, "timestamp": 1588687728924, "images": [1]},
]
STEAM = (
    "{u'username': u'Chaos', u'hours': 0.1, u'product_id': u'725280', u'date': u'2017-12-17', u'text': u'it\\'s'}\n"
    "{u'username': u'Ann', u'user_id': u'765', u'product_id': u'328100', u'date': u'2018-01-02', u'early': False}\n"
)


def lines(records: list[dict[str, object]]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


# ---- formats --------------------------------------------------------------------------------------------------------

HEADER = "userId,movieId,rating,timestamp\n"
COMMAS = MOVIELENS.replace("\t", ",")
PAIRS = [(1, 10), (1, 11), (2, 10)]
TIMED = [(196, 242, 881250949, 3.0), (186, 302, 891717742, 3.0), (22, 377, 878887116, 1.0)]


@pytest.mark.parametrize("gz", ["", ".gz"])
@pytest.mark.parametrize(
    ("name", "text", "format", "rows"),
    [
        ("u.data", MOVIELENS, "csv", TIMED),
        ("ratings.dat", MOVIELENS.replace("\t", "::"), "csv", TIMED),
        ("ratings.csv", HEADER + COMMAS, "csv", TIMED),
        ("crlf.csv", (HEADER + COMMAS).replace(",", ";").replace("\n", "\r\n"), "csv", TIMED),
        ("bom.csv", "\ufeff" + COMMAS, "csv", TIMED),
        ("bom_header.csv", "\ufeffuser,movieId,rating,timestamp\n" + COMMAS, "csv", TIMED),
        ("quoted.csv", HEADER + COMMAS.replace("242", '"242"'), "csv", TIMED),
        ("blank.csv", "\n\nuserId,movieId,rating,timestamp\n\n" + COMMAS + "\n", "csv", TIMED),
        ("spaces.csv", "userId, movieId, rating, timestamp\n" + MOVIELENS.replace("\t", " , "), "csv", TIMED),
        ("ml.inter", "user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + MOVIELENS, "inter", TIMED),
        ("Video.txt", "1 10\n1 11\n2 10\n", "csv", PAIRS),
        ("wide.txt", "1   10\n1 11  \n 2\t10\n", "csv", PAIRS),
        ("tabs.txt", "1\t10\n1\t11\n2\t10", "csv", PAIRS),
        ("Beauty.txt", "1 10 11\n2 10\n", "user-lines", PAIRS),
        ("lines.csv", "1,10,11,12\n2,10\n3\n", "user-lines", [(1, 10), (1, 11), (1, 12), (2, 10)]),
    ],
)  # fmt: skip
def test_text(write_file, name, text, format, rows, gz):
    log = read(write_file(name + gz, text))
    assert log.format == format
    assert log.rows == len(rows)
    assert log.time_unit == ("s" if len(rows[0]) == 4 else None)
    assert log.collect().rows() == rows
    assert log.collect().schema["user"] == log.collect().schema["item"] == pl.Int64


def test_amazon_reviews(write_file):
    log = read(write_file("Beauty.json.gz", lines(REVIEWS_2014)))
    assert log.collect().rows() == [
        ("A2SUAM1J3GNN3B", "0000013714", 1252800000, 5.0),
        ("A14VAT5EAX3D9S", "B000013714", 1252800001, 4.0),
    ]
    log = read(write_file("Beauty.jsonl", lines(REVIEWS_2023)))
    assert (log.time_unit, log.columns["item"]) == ("ms", "parent_asin")
    assert log.collect().rows() == [("AFK", "B0", 1588687728923, 4.0), ("AFL", "B9", 1588687728924, 5.0)]


def test_amazon_ratings_without_header_tell_users_from_items(write_file):
    user_first = "A39HTATAQ9V7YF,0205616461,5.0,1369699200\nA3JM6GV9MNOF9X,B002OVV7F0,3.0,1355443200\n"
    item_first = "0205616461,A39HTATAQ9V7YF,5.0,1369699200\nB002OVV7F0,A3JM6GV9MNOF9X,3.0,1355443200\n"
    expected = [("A39HTATAQ9V7YF", "0205616461", 1369699200, 5.0), ("A3JM6GV9MNOF9X", "B002OVV7F0", 1355443200, 3.0)]
    assert read(write_file("2014.csv", user_first)).collect().rows() == expected
    assert read(write_file("2018.csv", item_first)).collect().rows() == expected


def test_amazon_2023_ratings(write_file):
    log = read(write_file("a.csv", "user_id,parent_asin,rating,timestamp\nAE,B01,5.0,1441260345000\n"))
    assert (log.time_unit, log.collect().rows()) == ("ms", [("AE", "B01", 1441260345000, 5.0)])


@pytest.mark.parametrize("gz", ["", ".gz"])
def test_python_dicts(write_file, gz):
    log = read(write_file("steam.json" + gz, STEAM))
    assert (log.format, log.time_unit) == ("python-dict", "us")
    assert log.columns == {"user": "username", "item": "product_id", "time": "date"}
    assert log.collect().rows() == [("Chaos", 725280, 1513468800000000), ("Ann", 328100, 1514851200000000)]


def test_parquet_folder_and_pattern(tmp_path: Path):
    for number in (1, 2):
        frame = pl.DataFrame(
            {"uid": [number, number], "sku": ["a", "b"], "ts": [5, 6]}, schema_overrides={"uid": pl.UInt16}
        )
        frame.write_parquet(tmp_path / f"part-{number}.parquet")
    rows = [(1, "a", 5), (1, "b", 6), (2, "a", 5), (2, "b", 6)]
    assert read(tmp_path).collect().rows() == rows
    assert read(f"{tmp_path}/part-*.parquet").collect().rows() == rows
    assert read(tmp_path / "part-2.parquet").collect().rows() == rows[2:]
    (tmp_path / "x.parquet.gz").write_bytes(gzip.compress((tmp_path / "part-1.parquet").read_bytes()))
    assert read(tmp_path / "x.parquet.gz").collect().rows() == rows[:2]


def test_csv_folder(write_file):
    write_file("logs/a.csv", "user,item\n1,2\n")
    second = write_file("logs/b.csv", "user,item\n3,4\n")
    assert read(second.parent).collect().rows() == [(1, 2), (3, 4)]
    second.write_text("item,user\n3,4\n")
    with pytest.raises(DataError, match=r"b\.csv has the columns item, user, but .*a\.csv has user, item"):
        read(second.parent)
    second.write_text("user,item\n3,\n")
    with pytest.raises(DataError, match=r"b\.csv, line 2: the item .* is missing"):
        read(second.parent)
    write_file("logs/c.txt", "1 2\n")
    with pytest.raises(DataError, match=r"several kinds \(\.csv, \.txt\)"):
        read(second.parent)


def test_quotes_that_first_appear_below_the_sample(write_file):
    text = "user,item\n" + "1,2\n" * 3000 + '"ann, the first",3\n'
    frame = read(write_file("late.csv", text)).collect()
    assert frame.row(-1) == ("ann, the first", "3" if frame.schema["item"] == pl.String else 3)


def test_temporary_files_are_removed(write_file):
    log = read(write_file("x.csv.gz", "user,item\n1,2\n"))
    folder = log._scratch._folder
    assert folder is not None and folder.exists()
    del log
    gc.collect()
    assert not folder.exists()
    assert Scratch()._folder is None


# ---- columns --------------------------------------------------------------------------------------------------------


def test_names_and_positions(write_file):
    path = write_file("x.csv", "kunde;artikel;wann\na;b;2024-01-01\n")
    assert read(path, user="kunde", item="artikel", time="wann").collect().rows() == [("a", "b", 1704067200000000)]
    assert read(path, user=0, item=1, time=False, header=True).collect().rows() == [("a", "b")]
    assert read(path, user=0, item=1, header=True).columns["time"] == "wann"
    headless = write_file("y.csv", "5,1,7,9\n6,2,8,9\n")
    assert read(headless, user=1, item=0, rating=2).collect().rows() == [(1, 5, 7.0), (2, 6, 8.0)]
    assert read(headless, user=0, item=1, time=3).collect().rows() == [(5, 1, 9), (6, 2, 9)]


def test_false_leaves_out(write_file):
    path = write_file("u.data", MOVIELENS)
    assert read(path, rating=False).collect().columns == ["user", "item", "time"]
    assert read(path, rating=False, time=False).collect().columns == ["user", "item"]


@pytest.mark.parametrize(
    ("text", "options", "error", "message"),
    [
        ("user,item\n1,2\n", {"user": "usr"}, ColumnError, r'no column "usr" \(user\); did you mean "user"\?'),
        ("user,thing\n1,2\n", {}, ColumnError, r"no column looks like the item\. It has: user, thing"),
        ("user,item,sku\n1,2,3\n", {}, ColumnError, r'"item" and "sku" could each be the item\. Say which: item='),
        ("user,item\n1,2\n", {"item": "user"}, ColumnError, r'"user" cannot be both user and item'),
        ("user,item\n1,2\n", {"item": 2}, ColumnError, r"has 2 columns; item=2 counts from 0"),
        ("user,item,time\n1,2,\n2,3,\n", {}, ColumnError, r'"time" \(time\) has no values at all, in 2 rows'),
        ("user,item,item\n1,2,3\n", {}, DataError, r'line 1: the column name "item" occurs twice'),
        ("1,2,3\n2,3,4\n", {}, DataError, r'"1,2,3".*not certain what the last is \(rating or time\?\).*rating=2'),
        ("1,2,3,4\n2,3,4,5\n", {}, DataError, r"those after the second are \(rating or time\?\)"),
        ("ann,tea\nbob,milk\n", {}, DataError, r'line 1: "ann,tea" may be a header or the first interaction'),
        ("1,2\n2,3\n", {"user": "user"}, ColumnError, r"no header \(it begins \"1,2\"\), so 'user' cannot be found"),
        ("1,2\n2,3\n", {"user": 0}, DataError, r"pass both user= and item= as positions"),
        ("user,item\n1,2\n", {"user": True}, ConfigError, r"user=True: expected a text"),
        ("user,item\n1,2\n", {"user": False}, ConfigError, r"a log needs users and items"),
        ("user,item\n1,2\n", {"bad_rows": "keep"}, ConfigError, "bad_rows='keep': expected error or drop"),
        ("user,item\n1,2\n", {"format": "csvv"}, ConfigError, r'unknown format "csvv": did you mean "csv"'),
        ("user,item\n1,2\n", {"separator": "|"}, DataError, r'separator "\|" does not occur in "user,item"'),
        ("1 2 3\n2 3\n", {"time": 2}, ConfigError, r"one line per user, which has no column for time"),
        ("user,item,time\n1,2,3\n", {"time_unit": "h"}, ConfigError, r'unknown time_unit "h"'),
        ("user,item,time\n1,2,2020-01-01\n", {"time_unit": "s"}, ConfigError, r"is for numbers"),
    ],
)  # fmt: skip
def test_unclear_columns_say_what_to_pass(write_file, text, options, error, message):
    with pytest.raises(error, match=message):
        read(write_file("x.csv", text), **options)


# ---- ids and times --------------------------------------------------------------------------------------------------


def test_ids_keep_leading_zeros_and_late_words(write_file):
    late = "user,item\n" + "1,2\n" * 5000
    assert read(write_file("a.csv", late + "01,2\n")).collect().row(-1) == ("01", 2)
    assert read(write_file("b.csv", late + "1,x\n")).collect().row(-1) == (1, "x")
    assert read(write_file("c.csv", "user,item\n1.0,2\n3.0,4\n")).collect().rows() == [(1, 2), (3, 4)]


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("1588687728", 1588687728, "s"),
        ("7", 7, "s"),
        ("-5", -5, "s"),
        ("1588687728923", 1588687728923, "ms"),
        ("1588687728923000", 1588687728923000, "us"),
        ("1588687728923000000", 1588687728923000000, "ns"),
        ("1588687728.25", 1588687728250000, "us"),
        ("1.5e9", 1500000000000000, "us"),
        ("2020-05-05", 1588636800000000, "us"),
        ("2020-05-05T14:08:48", 1588687728000000, "us"),
        ("2020-05-05 14:08:48.923", 1588687728923000, "us"),
        ("2020-05-05T14:08:48Z", 1588687728000000, "us"),
        ("2020-05-05 16:08:48+02:00", 1588687728000000, "us"),
    ],
)
def test_times(write_file, text, value, unit):
    log = read(write_file("x.csv", f"user,item,time\n1,2,{text}\n"))
    assert (log.collect()["time"][0], log.time_unit) == (value, unit)


def test_time_unit_is_taken_at_its_word(write_file):
    path = write_file("x.csv", "user,item,time\n1,2,7\n1,2,1588687728923\n1,2,1588687728924\n")
    assert read(path, time_unit="ms").collect()["time"].to_list() == [7, 1588687728923, 1588687728924]


# ---- bad rows -------------------------------------------------------------------------------------------------------

HEAD = "user,item,rating,time\n1,2,3,900000000\n1,3,3,900000001\n"


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("1,2,3,soon", r"x\.csv, line 4: the time \(column \"time\"\) is 'soon'; expected a time in s.* 2 rows have"),
        ("1,2,3,1588687728923", r"line 4: the time .* is '1588687728923'.*several units\? .*time_unit="),
        ("1,2,3,", r"line 4: the time .* is missing\. 2 rows have no time.*time=False"),
        ("1,2,good,900000002", r"line 4: the rating .* is 'good'; expected a number"),
        (
            '1,2,"4,5",900000002',
            r"line 4: the rating .* is '4,5'; expected a number.* Write a point for the comma, or ",
        ),
        ("1,2,NaN,900000002", r"line 4: the rating .* is 'NaN'"),
        (",2,3,900000002", r"line 4: the user .* is missing\. 2 rows have no user\."),
        ("1,,3,900000002", r"line 4: the item .* is missing"),
        ("1,2,3", r'line 4 has 3 fields, expected 4: "1,2,3"\. 2 lines are like this'),
        ("1,2,3,900000002,5", r"line 4 has 5 fields, expected 4"),
    ],
)
def test_bad_rows(write_file, bad, message):
    path = write_file("x.csv", HEAD + f"{bad}\n7,8,1,900000003\n{bad}\n")
    with pytest.raises(DataError, match=message):
        read(path)
    log = read(path, bad_rows="drop")
    assert (log.rows, log.dropped) == (3, 2)
    assert log.collect()["user"].to_list() == [1, 1, 7]
    assert "2 bad rows dropped" in repr(log)


def test_bad_rows_in_quoted_text_name_the_line_in_the_file(write_file):
    head = 'user,item,time,title\n1,2,900000000,"two\nlines"\n\n'
    with pytest.raises(DataError, match=r"line 5: the time .* is 'soon'"):
        read(write_file("x.csv", head + '1,3,soon,"a"\n1,3,900000000,b\n1,3,900000000,b\n'))
    with pytest.raises(DataError, match=r"line 5 has 5 fields, expected 4"):
        read(write_file("y.csv", head + '1,3,900000000,"a",b\n'))
    with pytest.raises(DataError, match=r"line 5 has 3 fields, expected 4"):
        read(write_file("z.csv", head + "1,3,900000000\n"))


def test_bad_json(write_file):
    good = lines(REVIEWS_2014)
    with pytest.raises(DataError, match=r'x\.jsonl, line 4: expected a JSON object, found "\{"reviewerID'):
        read(write_file("x.jsonl", good + "\n" + '{"reviewerID": broken}\n'))
    with pytest.raises(DataError, match=r"line 4: the item .* is missing"):
        read(write_file("y.jsonl", good + "\n" + '{"reviewerID": "A", "overall": 1, "unixReviewTime": 1252800000}\n'))
    with pytest.raises(DataError, match=r"line 3: expected a Python dict, found \"\{u'username'"):
        read(write_file("w.json", STEAM + "{u'username': open('x')}\n"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.csv", b"", r"empty\.csv is empty: it holds no interactions \(0 bytes\)"),
        ("blank.csv", b"\n \n", "is empty"),
        ("header.csv", b"user,item\n", r'holds a header \("user,item"\) and no interactions'),
        ("x.zip", b"PK\x03\x04abc", "zip archive .*: unpack it first"),
        ("x.bin", b"a\0b", "binary file of an unknown kind"),
        ("x.txt", "a,b".encode("utf-16"), "UTF-16 text: save it as UTF-8"),
        ("x.csv", b"user,item\n1,2\n\xe9,3\n", r"x\.csv, line 3: byte 0xe9 at column 1 is not UTF-8.*iconv"),
        ("x.parquet", b"PAR1 no PAR1", r"x\.parquet cannot be read"),
        ("one.txt", b"hello\nworld\n", r'no separator found .*The first line is "hello"'),
        ("bad.gz", b"\x1f\x8b\x08garbage-garbage", r"damaged or truncated gzip"),
    ],
)
def test_unreadable_files(tmp_path: Path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(path)


def test_truncated_gzip(tmp_path: Path):
    path = tmp_path / "x.csv.gz"
    path.write_bytes(gzip.compress(b"user,item\n" + b"1,2\n" * 10_000)[:-20])
    with pytest.raises(DataError, match=r"x\.csv\.gz is damaged or truncated gzip"):
        read(path)


def test_missing_file_names_its_neighbours(write_file):
    path = write_file("ratings.csv", "user,item\n1,2\n")
    with pytest.raises(DataError, match=r"rating\.csv: no such file; .* holds: ratings\.csv"):
        read(path.parent / "rating.csv")
    with pytest.raises(DataError, match="no such file"):
        read(path.parent / "*.tsv")


def test_all_rows_bad(write_file):
    path = write_file("x.csv", "user,item,time\n,2,5\n,3,5\n1,,5\n")
    with pytest.raises(DataError, match=r"none of its 3 rows can be used\. The first: .*line 2: the user"):
        read(path, bad_rows="drop")


# ---- the public files -----------------------------------------------------------------------------------------------


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "rows", "users", "items"),
    [
        ("ml-100k/u.data", 100_000, 943, 1_682),
        ("ml-100k/ml-100k.inter", 100_000, 943, 1_682),
        ("amazon-games/Video.txt", 287_107, 31_013, 23_715),
        ("amazon-beauty/Beauty.txt", 198_502, 22_363, 12_101),
    ],
)
def test_public_files(real_data: Path, name, rows, users, items):
    log = read(real_data / name)
    frame = log.collect()
    assert (log.rows, frame["user"].n_unique(), frame["item"].n_unique()) == (rows, users, items)
    assert ("time" in frame.columns) == name.startswith("ml-100k")


def test_every_error_is_ours(write_file):
    with pytest.raises(SegueError):
        read(write_file("x.csv", "user,item\n1\n"))


def test_compact_dates_and_minutes(write_file):
    log = read(write_file("x.csv", "user,item,date\n1,2,20200505\n"))
    assert (log.collect()["time"][0], log.time_unit) == (1588636800000000, "us")
    assert read(write_file("x.csv", "user,item,date\n1,2,20200505\n"), time_unit="s").collect()["time"][0] == 20200505
    assert read(write_file("y.csv", "user,item,date\n1,2,2020-05-05 00:01\n")).collect()["time"][0] == 1588636860000000


def test_mixed_dates_and_nested_ids_are_named(write_file):
    with pytest.raises(
        DataError, match=r"line 3: the time .* is '2020-01-02T00:00:00'; expected a time like 2020-01-01"
    ):
        read(write_file("x.csv", "user,item,time\n1,2,2020-01-01\n1,2,2020-01-02T00:00:00\n"))
    with pytest.raises(ColumnError, match=r'"user" \(user\) holds lists or objects'):
        read(write_file("x.jsonl", '{"user": {"id": 1}, "item": 2}\n'))


def test_a_quote_that_is_never_closed(write_file):
    with pytest.raises(DataError, match=r"x\.csv, line 2: a quote mark is opened and not closed.*quote='none'"):
        read(write_file("x.csv", 'user,item\n"1,2\n3,4\n'))
    assert read(write_file("x.csv", 'user,item\n"1,2\n3,4\n'), quote="none").collect().rows() == [('"1', 2), ("3", 4)]


def test_names_with_wildcards_are_files(write_file):
    assert read(write_file("a[1]/b[2].jsonl", '{"user": 1, "item": 2}\n')).rows == 1
    assert read(write_file("a[1]/b[2].csv", "user,item\n1,2\n")).rows == 1
