"""Both stores do the same."""

from __future__ import annotations

import itertools
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from segue.errors import ConfigError, StorageError
from segue.serving.store.address import open_store
from segue.serving.store.base import CLICKED, FORGOTTEN, RETRACTED, SHOWN, TOOK, Change, NewEvent, Outcome, Store

NUMBERS = itertools.count(1)


@pytest.fixture
def store(address: str) -> Iterator[Store]:
    opened = open_store(address)
    yield opened
    opened.close()


def event(
    user: str = "ann", item: str = "tea", time: int = 1, kind: int = TOOK, event_id: str | None = None
) -> NewEvent:
    name = event_id or f"made-{next(NUMBERS)}"
    return NewEvent(name, kind, user, item, time, None, None, None, 10, event_id is not None)


def changes(store: Store, after: int = 0) -> list[Change]:
    return [change for part in store.changes(after) for change in part]


def test_events_come_back_in_order(store: Store) -> None:
    given = NewEvent("x", TOOK, "ann", "tea", -5, "s1", 4.5, "main.1", 77, True)
    assert store.append([[given, event(item="milk")], [event("bob", kind=SHOWN)]]) == [Outcome(2), Outcome(1)]
    assert [(one.user, one.item) for one in changes(store)] == [("ann", "tea"), ("ann", "milk")]
    newest = store.of_user("ann", 10)[1]
    assert newest[1:] == ("x", TOOK, "ann", "tea", -5, "s1", 4.5, "main.1", 77)
    assert store.last() == 3
    assert changes(store, store.last()) == []


@pytest.mark.parametrize("sessions", [True, False])
@pytest.mark.parametrize("times", [True, False])
def test_what_was_taken_comes_back_in_columns(store: Store, times: bool, sessions: bool) -> None:
    in_session = NewEvent("x", TOOK, "ann", "tea", -5, "s1", None, None, 77, True)
    store.append([[in_session, event("bob", "milk", 3), event("bob", "wine", 4, SHOWN), event("", "", 5, FORGOTTEN)]])
    (part,) = store.took(50, times=times, sessions=sessions)
    assert (part.users.to_list(), part.items.to_list()) == (["ann"], ["tea"])
    parts = list(store.took(times=times, sessions=sessions))
    assert [user for part in parts for user in part.users] == ["ann", "bob"]
    assert [item for part in parts for item in part.items] == ["tea", "milk"]
    assert [one for part in parts for one in part.sessions] == (["s1", ""] if sessions else ["", ""])
    assert [int(time) for part in parts for time in part.times] == ([-5, 3] if times else [0, 0])


def test_the_same_event_id_changes_nothing(store: Store) -> None:
    assert store.append([[event(event_id="x"), event(item="milk", event_id="x")]]) == [Outcome(1, 1)]
    assert store.append([[event("bob", "wine", event_id="x")], [event("bob")]]) == [Outcome(0, 1), Outcome(1)]
    assert [(one.user, one.item) for one in changes(store)] == [("ann", "tea"), ("bob", "tea")]


def test_taking_back_by_event_id_or_by_item(store: Store) -> None:
    store.append([[event(event_id="x"), event(item="milk", time=1), event(item="milk", time=2)]])
    seen = store.last()
    back = event(event_id="x", kind=RETRACTED)
    assert store.append([[back]]) == [Outcome(0, 0, 1)]
    assert store.append([[back]]) == [Outcome(0, 1, 0)]
    assert store.append([[event(item="milk", kind=RETRACTED)]]) == [Outcome(0, 0, 1)]
    assert [(one.kind, one.item, one.time) for one in changes(store)] == [(TOOK, "milk", 1)]
    assert [(one.kind, one.item, one.time) for one in changes(store, seen)] == [
        (RETRACTED, "tea", 1),
        (RETRACTED, "milk", 2),
    ]
    assert [one.item for one in store.of_user("ann", 10)] == ["milk"]


def test_taking_back_before_the_event_arrives(store: Store) -> None:
    assert store.append([[event(event_id="x", kind=RETRACTED)]]) == [Outcome()]
    assert store.append([[event(event_id="x")]]) == [Outcome(0, 1)]
    assert changes(store) == []


def test_nobody_takes_back_the_event_of_another(store: Store) -> None:
    store.append([[event(event_id="x")]])
    store.append([[event("bob", event_id="x", kind=RETRACTED)]])
    assert len(changes(store)) == 1


def test_forgetting(store: Store) -> None:
    store.append([[event(), event(kind=SHOWN), event("bob")]])
    seen = store.last()
    assert store.forget("ann", 99) == 2
    assert store.forget("ann", 99) == 0
    assert [one.user for one in changes(store) if one.kind == TOOK] == ["bob"]
    assert [(one.kind, one.user) for one in changes(store, seen)] == [(FORGOTTEN, "ann")]
    assert store.of_user("ann", 10) == []
    assert store.forgotten() == [("ann", 99)]
    store.append([[event()]])
    assert [one.kind for one in changes(store, seen)] == [FORGOTTEN, TOOK]


def test_forgotten_ids_and_items_are_not_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    store = open_store(f"sqlite:///{path}")
    store.append([[event("ann", "secret-item")]])
    store.forget("ann", 1)
    store.close()
    assert all(b"secret-item" not in file.read_bytes() for file in tmp_path.iterdir())


def test_export_has_what_counts(store: Store) -> None:
    store.append([[event(event_id="x"), event(kind=SHOWN), event(kind=CLICKED), event("bob")]])
    store.append([[event(event_id="x", kind=RETRACTED)]])
    assert [(row.user, row.kind) for part in store.export(None, (TOOK, SHOWN)) for row in part] == [
        ("ann", SHOWN),
        ("bob", TOOK),
    ]
    assert [row for part in store.export(11, (TOOK,)) for row in part] == []


def test_strange_texts(store: Store) -> None:
    for text in ("'; DROP TABLE events; --", "<script>", "%s ? {x}", "\\", "ü\U0001f600", "a" * 500, '"', "$1"):
        store.append([[event(text, text, event_id=text)]])
        assert [row.item for row in store.of_user(text, 10)] == [text]


def test_many_writers(address: str) -> None:
    """Readers that follow the numbers of rows miss nothing, whoever writes."""
    stores = [open_store(address) for _ in range(3)]
    reader = open_store(address)

    def write(number: int) -> None:
        for one in range(30):
            stores[number].append([[event(str(number), str(one))]])

    threads = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    seen: list[Change] = []
    while any(thread.is_alive() for thread in threads):
        seen += changes(reader, seen[-1].seq if seen else 0)
    for thread in threads:
        thread.join()
    seen += changes(reader, seen[-1].seq if seen else 0)
    assert sorted((one.user, int(one.item)) for one in seen) == [(str(n), one) for n in range(3) for one in range(30)]
    for one in [*stores, reader]:
        one.close()


def test_a_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    open_store(f"sqlite:///{path}").close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StorageError, match="newer"):
        open_store(f"sqlite:///{path}")


def test_what_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("a text that is no database" * 100)
    with pytest.raises(StorageError, match="cannot be used"):
        open_store(f"sqlite:///{tmp_path / 'text.db'}")
    with pytest.raises(StorageError, match="no such store"):
        open_store(f"sqlite:///{tmp_path / 'nowhere.db'}", existing=True)
    for address in ("events.db", "sqlite://", "mysql://host/db", ""):
        with pytest.raises(ConfigError, match="no address"):
            open_store(address)


def test_a_database_that_is_not_there() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(StorageError, match="cannot be used"):
        open_store("postgresql://127.0.0.1:1/nowhere")
