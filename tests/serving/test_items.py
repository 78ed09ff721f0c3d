"""Items that are put into the catalogue through the API."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import segue
from segue.errors import ConfigError, DataError
from segue.serving.items import Document, with_documents
from tests.serving.servers import Server, serving

TABLE = pl.DataFrame(
    {
        "item": ["tea", "milk", "bread"],
        "title": ["Tea", "Milk", None],
        "category": ["drinks", "drinks", "food"],
        "price": [3, 2, 1],
        "tags": [["hot"], [], ["oven", "warm"]],
        "listed": ["2024-01-01", "2024-01-02", "2024-01-03"],
    }
).with_columns(pl.col("listed").str.to_datetime())
LOG = pl.DataFrame(
    {"user": ["ann", "ann", "bob", "bob"], "item": ["tea", "milk", "milk", "bread"], "time": [1, 2, 3, 4]}
)


@pytest.fixture(scope="module")
def table_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = segue.prepare(LOG, items=TABLE)
    folder: Path = tmp_path_factory.mktemp("run") / "markov"
    segue.fit(segue.Markov(), data, quiet=True).save(folder)
    return folder


@pytest.fixture
def item_server(table_run: Path, tmp_path: Path) -> Iterator[Server]:
    with serving(table_run, f"sqlite:///{tmp_path / 'events.db'}", "--watch", "0.2") as started:
        yield started


def put(server: Server, *items: dict[str, Any]) -> Any:
    status, answer, _ = server.ask("PUT", "/v1/items", list(items))
    assert status == 200, answer
    return answer


def test_columns_of_a_dataset() -> None:
    data = segue.prepare(LOG, items=TABLE)
    newer = with_documents(
        data,
        {
            "jam": Document("Jam", {"price": 4.0, "tags": ["sweet"], "listed": "2024-02-01T10:00:00+02:00"}),
            "tea": Document(None, {"price": 9}),
        },
    )
    assert newer.catalogue.ids.to_list() == [*data.catalogue.ids.to_list(), "jam"]
    frame = newer.items_frame
    jam = frame.row(3, named=True)
    assert (jam["title"], jam["price"], jam["category"], jam["tags"]) == ("Jam", 4, None, ["sweet"])
    assert jam["listed"].isoformat() == "2024-02-01T08:00:00"
    tea = frame.filter(pl.col("item") == "tea").row(0, named=True)
    assert (tea["title"], tea["price"], tea["tags"]) == ("Tea", 9, ["hot"])
    for columns in ({"prize": 3}, {"price": "3"}, {"price": 1.5}, {"tags": "hot"}, {"listed": "soon"}, {"title": 3}):
        with pytest.raises(ConfigError):
            with_documents(data, {"jam": Document(None, columns)})
        with_documents(data, {"jam": Document(None, columns)}, strict=False)
    numbers = segue.prepare(pl.DataFrame({"user": [1], "item": [2], "time": [3]}))
    with pytest.raises(DataError):
        with_documents(numbers, {"jam": Document(None, {})})
    assert with_documents(numbers, {"jam": Document(None, {})}, strict=False).n_items == 1
    with pytest.raises(ConfigError, match="no table"):
        with_documents(numbers, {"3": Document("Three", {})})


def test_an_item_is_put_changed_and_kept(item_server: Server, table_run: Path) -> None:
    server = item_server
    assert server.post("events", {"user": "eve", "item": "jam"})["unknown_items"] == 1
    assert server.ask("GET", "/v1/items/jam")[0] == 404
    answer = put(server, {"item": "jam", "title": "Jam", "columns": {"price": 4, "category": "food"}})
    assert answer == {"stored": 1, "variants": [{"variant": "main", "recommended": 0, "waiting": 1}]}
    item = server.ask("GET", "/v1/items/jam")[1]
    assert (item["title"], item["columns"]["price"], item["interactions"]) == ("Jam", 4, 0)
    assert item["recommended"] is False
    history = server.ask("GET", "/v1/users/eve")[1]["history"]
    assert [(one["item"], one["title"]) for one in history] == [("jam", "Jam")]
    server.post("events", {"user": "eve", "item": "jam", "time": 5})
    put(server, {"item": "pie"}, {"item": "jam", "columns": {"price": 5}}, {"item": "tea", "columns": {"price": 7}})
    item = server.ask("GET", "/v1/items/jam")[1]
    assert (item["title"], item["columns"]["price"], item["columns"]["category"]) == ("Jam", 5, "food")
    history = server.ask("GET", "/v1/users/eve")[1]["history"]
    assert [one["item"] for one in history] == ["jam", "jam"]
    cheap = {"history": ["milk"], "exclude_seen": False, "where": "price = 7"}
    assert server.items(**cheap, k=3) == ["tea"]
    for k in (3, 5):
        lists = server.post("recommend", {"user": "ann", "k": k, "exclude_seen": False})["items"]
        assert not {"jam", "pie"} & {one["item"] for one in lists}
    for body, word in (
        ({"item": "jam", "columns": {"prise": 3}}, "price"),
        ({"item": "jam", "columns": {"price": "much"}}, "integer"),
        ({"item": "jam", "surprise": 3}, "surprise"),
    ):
        status, problem, _ = server.ask("PUT", "/v1/items", body)
        assert status == 422 and word in problem["detail"], problem
    assert server.ask("GET", "/v1/items/tea")[1]["columns"]["listed"].startswith("2024-01-01T00:00:00")


def test_items_outlive_the_server_and_reach_others(table_run: Path, address: str) -> None:
    with serving(table_run, address, "--watch", "0.2") as one, serving(table_run, address, "--watch", "0.2") as two:
        one.post("events", {"user": "eve", "item": "jam"})
        put(one, {"item": "jam", "title": "Jam"})
        deadline = time.monotonic() + 20
        while two.ask("GET", "/v1/items/jam")[0] != 200:
            assert time.monotonic() < deadline
        while [row["item"] for row in two.ask("GET", "/v1/users/eve")[1]["history"]] != ["jam"]:
            assert time.monotonic() < deadline
    with serving(table_run, address) as three:
        assert three.ask("GET", "/v1/items/jam")[1]["title"] == "Jam"
        assert [row["item"] for row in three.ask("GET", "/v1/users/eve")[1]["history"]] == ["jam"]


def test_a_model_without_a_table_takes_ids(run: Path, tmp_path: Path) -> None:
    with serving(run, f"sqlite:///{tmp_path / 'events.db'}") as server:
        put(server, {"item": 13})
        assert "columns" not in server.ask("GET", "/v1/items/13")[1]
        status, problem, _ = server.ask("PUT", "/v1/items", {"item": 14, "title": "Fourteen"})
        assert status == 422 and "--items" in problem["detail"]
        assert server.ask("PUT", "/v1/items", {"item": "fifteen"})[0] == 422


def test_an_item_without_a_score(item_server: Server) -> None:
    """Popularity has none for an item that nobody took; the answer says so, and is as documented."""
    put(item_server, {"item": "jam"})
    for question in ({"history": []}, {"user": "ann"}):
        answer = item_server.post("score", {**question, "items": ["jam", "milk"]})
        assert answer["items"][0] == {"item": "jam", "score": None}
        assert answer["items"][1]["score"] is not None
    assert "jam" not in "".join(item_server.lines)
