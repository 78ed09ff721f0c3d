"""The API of a server in its own process."""

from __future__ import annotations

import concurrent.futures
import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl
import pytest

import segue
from segue.cli.main import main
from segue.serving.tokens import new_token
from tests.serving.servers import Server, make_run, serving


def test_the_next_answer_knows_an_event(server: Server) -> None:
    assert server.items(user="guest", k=2) == server.items(user="other", k=2)
    answer = server.post("recommend", {"user": "guest"})
    assert answer["model"] == "popularity"
    stored = server.post("events", {"user": "guest", "item": 4})
    assert stored["stored"] == 1 and len(stored["event_ids"]) == 1
    answer = server.post("recommend", {"user": "guest", "k": 1})
    assert (answer["model"], answer["variant"], answer["user"]) == ("markov", "main", "guest")
    assert answer["items"][0]["item"] == 5 and answer["items"][0]["rank"] == 1
    server.post("events", {"user": "guest", "item": "7"})
    assert server.items(user="guest", k=1) == [8]
    found = server.ask("GET", "/v1/users/guest")[1]
    assert [one["item"] for one in found["history"]] == [4, 7]
    assert not found["known"] and len(found["events"]) == 2


def test_events_many_at_once_repeated_and_taken_back(server: Server) -> None:
    events = [{"user": "many", "item": item, "event_id": f"many-{item}", "time": item} for item in range(1, 6)]
    events += [{"user": "many", "item": "unheard", "type": "took"}, {"user": "many", "item": 9, "type": "shown"}]
    first = server.post("events", events)
    assert (first["stored"], first["repeated"], first["unknown_items"]) == (7, 0, 1)
    again = server.post("events", events[:5])
    assert (again["stored"], again["repeated"]) == (0, 5)
    assert server.items(user="many", k=1) == [6]
    back = server.post("events", {"user": "many", "item": 5, "type": "retracted", "event_id": "many-5"})
    assert back["retracted"] == 1
    assert server.items(user="many", k=1, exclude_seen=False) == [5]
    assert server.post("events", events[4])["repeated"] == 1
    assert server.items(user="many", k=1, exclude_seen=False) == [5]


def test_times_decide_the_order(server: Server) -> None:
    server.post("events", {"user": "late", "item": 3, "time": "2024-03-02T12:00:00+02:00"})
    server.post("events", {"user": "late", "item": 8, "time": 1_600_000_000})
    assert server.items(user="late", k=1) == [4]
    history = server.ask("GET", "/v1/users/late")[1]["history"]
    assert [one["item"] for one in history] == [8, 3]
    assert server.items(user="late", k=1, as_of="2024-01-01") == [9]


def test_a_forgotten_user(server: Server) -> None:
    assert server.ask("GET", "/v1/users/24")[1]["known"]
    server.post("events", {"user": 24, "item": 3})
    status, answer, _ = server.ask("DELETE", "/v1/users/24")
    assert (status, answer["deleted_events"]) == (200, 1)
    assert server.post("recommend", {"user": 24})["model"] == "popularity"
    assert server.ask("GET", "/v1/users/24")[0] == 404
    server.post("events", {"user": 24, "item": 5})
    assert server.items(user=24, k=1) == [6]


def test_histories_and_baskets(server: Server) -> None:
    assert server.items(history=[1, 2], k=1) == [3]
    assert server.items(history=[{"item": 6, "time": 20}, {"item": 2, "time": 10}], k=1) == [7]
    assert server.items(basket=[3, 4], k=1) == [5]
    assert server.items(user=1, basket=[9], k=1) == [10]
    assert server.items(history=[1], k=2, deny=[2]) == server.items(history=[1], k=3)[1:]
    assert server.items(history=[1], allow=[5, "6"]) and set(server.items(history=[1], allow=[5, "6"])) == {5, 6}
    assert server.post("recommend", {"history": [1, "?"], "k": 1})["unknown_items"] == ["?"]


def test_other_questions(server: Server) -> None:
    scores = server.post("score", {"history": [1], "items": [2, 3]})["items"]
    assert scores[0]["score"] > scores[1]["score"]
    steps = server.post("complete", {"basket": [1], "n": 3})["items"]
    assert [step["item"] for step in steps] == [2, 3, 4]
    similar = server.post("similar", {"items": [1], "k": 2})["items"]
    assert len(similar) == 2 and similar[0]["item"] == 1
    (explained,) = server.post("explain", {"history": [3, 1], "items": [2], "top": 1})["items"]
    assert explained["reasons"][0]["because"] == 1
    answer = server.post("recommend", {"history": [3, 1], "k": 1, "explain": 1})
    assert answer["items"][0]["reasons"][0]["because"] == 1
    assert server.ask("GET", "/v1/items/5")[1]["interactions"] > 0
    (model,) = server.ask("GET", "/v1/models")[1]["models"]
    assert (model["model"], model["share"], model["items"]) == ("markov", 1, 12)


def test_a_batch(server: Server) -> None:
    requests = [{"user": 1, "k": 1}, {}, {"user": "?", "unknown": "error"}, {"history": [1], "k": 1, "explain": 1}]
    answers = server.post("recommend/batch", {"requests": requests * 30})["answers"]
    assert len(answers) == 120
    assert [one["problem"]["status"] if "problem" in one else 200 for one in answers[:4]] == [200, 422, 404, 200]


WRONG: list[tuple[int, str, Any]] = [
    (400, "recommend", b"{"),
    (400, "recommend", b"\xff"),
    (422, "recommend", b"[" * 100_000),
    (422, "recommend", {}),
    (422, "recommend", {"user": None}),
    (422, "recommend", {"user": 1, "k": 0}),
    (422, "recommend", {"user": 1, "k": 1.5}),
    (422, "recommend", {"user": 1, "k": 13}),
    (422, "recommend", {"user": 1, "surprise": 1}),
    (422, "recommend", {"user": [1]}),
    (422, "recommend", {"user": ""}),
    (422, "recommend", {"user": "a\0b"}),
    (422, "recommend", {"user": 10**30}),
    (422, "recommend", {"user": True}),
    (422, "recommend", {"user": 1, "as_of": "soon"}),
    (422, "recommend", {"user": 1, "variant": "b"}),
    (422, "recommend", {"history": [1] * 10_001}),
    (422, "recommend", {"history": [{"item": 1, "time": 1}, 2]}),
    (404, "recommend", {"user": "nobody", "unknown": "error"}),
    (404, "recommend", {"user": 1, "allow": ["nothing"]}),
    (422, "recommend/batch", {"requests": []}),
    (404, "score", {"user": 1, "items": ["nothing"]}),
    (404, "similar", {"items": ["nothing"]}),
    (404, "explain", {"user": "nobody", "items": [1]}),
    (422, "events", []),
    (422, "events", [{"user": 1, "item": 1}] * 1001),
    (422, "events", {"user": 1}),
    (422, "events", {"user": 1, "item": 1, "type": "ate"}),
    (422, "events", {"user": 1, "item": 1, "time": "yesterday"}),
    (422, "events", {"user": 1, "item": 1, "time": 1e300}),
    (413, "events", b"[" + b" " * 1_000_001 + b"]"),
]


@pytest.mark.parametrize(("status", "path", "body"), WRONG, ids=range(len(WRONG)))
def test_errors_are_problems_with_a_message(server: Server, status: int, path: str, body: Any) -> None:
    found, problem, headers = server.ask("POST", f"/v1/{path}", body)
    assert found == status, problem
    assert headers["content-type"] == "application/problem+json"
    assert problem["status"] == status and problem["type"].startswith("urn:segue:problem:")
    assert len(problem["detail"]) > 10 and "Traceback" not in str(problem)


def test_lone_halves_of_characters_are_refused(server: Server) -> None:
    for path, body in (("recommend", b'{"user": "\\ud800"}'), ("events", b'{"user": "\\udfff", "item": 1}')):
        assert server.ask("POST", f"/v1/{path}", body)[0] in (400, 422)


def test_paths_and_methods(server: Server) -> None:
    for path in ("/nowhere", "/v1", "/v1/", "/v1/users/", "/v1/recommend/", "/../etc/passwd", "/%2e%2e/etc/passwd",
                 "/v1/items/..%2f..%2fetc%2fpasswd", "/v1/items/%00", "/v1/users/" + "a" * 501,
                 "/v1/items/%ff"):  # fmt: skip
        status, answer, _ = server.ask("GET", path)
        assert status in (404, 405, 422), path
        assert answer["detail"]
    assert server.ask("PUT", "/v1/recommend", {})[0] == 405
    assert server.ask("GET", "/v1/users/%3Cscript%3E")[0] == 404


def test_only_json_is_read_and_other_pages_are_refused(server: Server) -> None:
    body = b'{"user": "guest", "item": 1}'
    assert server.ask("POST", "/v1/events", body, {"Content-Type": "text/plain"})[0] == 415
    assert server.ask("POST", "/v1/events", body, {"Origin": "https://elsewhere.example"})[0] == 403
    assert server.ask("GET", "/v1/models", headers={"Host": "elsewhere.example"})[0] == 421
    assert server.ask("GET", "/v1/models", headers={"Origin": server.url})[0] == 200
    headers = server.ask("GET", "/v1/models")[2]
    assert "access-control-allow-origin" not in headers
    assert headers["x-content-type-options"] == "nosniff" and "default-src 'none'" in headers["content-security-policy"]
    assert "server" not in headers


def test_documents_health_and_metrics(server: Server) -> None:
    document = server.ask("GET", "/openapi.json")[1]
    assert document["openapi"] == "3.1.0" and len(document["paths"]) == 16
    page = server.ask("GET", "/docs")[1]
    assert "/v1/recommend" in page and "http://" not in page and "https://" not in page and "<script" not in page
    assert server.ask("GET", "/health/live")[1] == {"status": "ok"}
    assert server.ask("GET", "/health/ready")[1] == {"status": "ok"}
    server.items(user=1)
    metrics = server.ask("GET", "/metrics")[1]
    for name in ("requests_total", "request_seconds_bucket", "batch_requests_sum", "queue_requests", "events_total",
                 "model_loaded_timestamp_seconds", "commit_events_count", "live_events"):  # fmt: skip
        assert f"segue_{name}" in metrics


def test_requests_at_once_are_answered_together(server: Server) -> None:
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        lists = list(pool.map(lambda user: server.items(user=user, k=1), [*range(1, 21)] * 5))
    assert lists == [server.items(user=user, k=1) for user in range(1, 21)] * 5


def test_tokens_and_rights(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "tokens.toml"
    tokens = {name: new_token(file, name, [name]) for name in ("read", "write", "admin")}
    assert all(token not in file.read_text() for token in tokens.values())
    needed = {
        "read": ("POST", "/v1/recommend", {"user": 1}),
        "write": ("POST", "/v1/events", {"user": 1, "item": 2}),
        "admin": ("POST", "/v1/models/reload", None),
    }
    with serving(run, f"sqlite:///{tmp_path / 'events.db'}", "--tokens", str(file), "--host", "0.0.0.0") as server:
        server.url = f"http://127.0.0.1:{server.port}"
        for right, (method, path, body) in needed.items():
            for name, token in tokens.items():
                server.token = token
                assert server.ask(method, path, body)[0] == (200 if name == right else 403)
        server.token = None
        right = tokens["read"]
        for wrong in ("", "Bearer", "Bearer ", "Basic x", f"Bearer {right}x", f"Bearer {right[:-1]}", f"Token {right}",
                      "Bearer \xff", "Bearer ' OR 1=1"):  # fmt: skip
            status, _, headers = server.ask("POST", "/v1/recommend", {"user": 1}, {"Authorization": wrong})
            assert (status, headers["www-authenticate"]) == (401, "Bearer"), wrong
        assert server.ask("GET", "/metrics")[0] == 401
        assert server.ask("GET", "/health/live")[0] == 200


def test_limits_of_rate_and_queue(run: Path, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'events.db'}"
    with serving(run, store, "--rate", "5", "--queue", "1", "--window-ms", "100") as server:
        statuses = [server.ask("GET", "/v1/models") for _ in range(8)]
        assert [status for status, *_ in statuses].count(200) >= 5
        refused = [headers for status, _, headers in statuses if status == 429]
        assert refused and all(int(headers["retry-after"]) >= 1 for headers in refused)
    with serving(run, store, "--queue", "1", "--window-ms", "100", "--kept", "0") as server:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: server.ask("POST", "/v1/recommend", {"user": 1}), range(8)))
        assert {status for status, *_ in answers} == {200, 503}
        assert all(headers["retry-after"] == "1" for status, _, headers in answers if status == 503)


def test_no_service_for_everyone_by_accident(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(run), "--host", "0.0.0.0", "--port", "0"]) == 2
    assert "segue token new" in capsys.readouterr().err


def test_a_new_run_takes_the_place_and_a_broken_one_is_refused(tmp_path: Path) -> None:
    one, two = make_run(tmp_path / "one"), make_run(tmp_path / "two", shift=2)
    current = tmp_path / "current"
    current.symlink_to(one)

    def point(target: Path) -> None:
        new = tmp_path / "new-link"
        new.symlink_to(target)
        new.replace(current)

    with serving(current, f"sqlite:///{tmp_path / 'events.db'}", "--watch", "0.2") as server:
        server.post("events", {"user": "guest", "item": 4})
        assert server.items(user="guest", k=1) == [5]
        point(two)
        deadline = time.monotonic() + 30
        while server.items(user="guest", k=1) != [6]:
            assert time.monotonic() < deadline
        broken = make_run(tmp_path / "broken")
        (broken / "weights.safetensors").write_bytes(b"no weights")
        point(broken)
        status, problem, _ = server.ask("POST", "/v1/models/reload")
        assert status >= 500 and problem["detail"]
        assert server.items(user="guest", k=1) == [6]
        point(one)
        assert server.ask("POST", "/v1/models/reload")[1] in (
            {"reloaded": ["main"], "unchanged": []},
            {"reloaded": [], "unchanged": ["main"]},  # it was noticed already
        )
        assert server.items(user="guest", k=1) == [5]
        server.post("events", {"user": "guest", "item": 9})
        assert server.items(user="guest", k=1) == [10]
        assert server.stop() == 0


def test_variants_share_the_users(tmp_path: Path) -> None:
    one, two = make_run(tmp_path / "one"), make_run(tmp_path / "two", shift=2)
    store = f"sqlite:///{tmp_path / 'events.db'}"
    with serving(f"a={one}:75 b={two}:25", store) as server:
        answers = [server.post("recommend", {"user": f"user {n}", "basket": [1], "k": 1}) for n in range(200)]
        names = [answer["variant"] for answer in answers]
        assert 25 < names.count("b") < 80
        assert all(answer["items"][0]["item"] == {"a": 2, "b": 3}[answer["variant"]] for answer in answers)
        assert all(answer["recommendation_id"].startswith(answer["variant"] + ".") for answer in answers)
        assert server.items(basket=[1], k=1, variant="b") == [3]
        events = []
        for n, answer in enumerate(answers):
            event = {"user": f"user {n}", "item": answer["items"][0]["item"]}
            events.append({**event, "type": "shown", "recommendation_id": answer["recommendation_id"]})
            if answer["variant"] == "b" or n % 4 == 0:
                events.append({**event, "type": "took"})
        server.post("events", events)
    target = tmp_path / "events.parquet"
    assert main(["events", "export", "--store", store, "--out", str(target)]) == 0
    log = pl.read_parquet(target)
    assert len(log) == sum(event["type"] == "took" for event in events)
    assert segue.prepare(log).n_interactions == len(log)


def test_the_outcome_of_variants(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from segue.serving.store.address import open_store
    from segue.serving.store.base import SHOWN, TOOK, NewEvent

    store = f"sqlite:///{tmp_path / 'events.db'}"
    rows = []
    for n in range(200):
        name = "ab"[n % 2]
        rows.append(NewEvent(f"s{n}", SHOWN, f"u{n}", "x", 10, None, None, f"{name}.{n}", 1, True))
        if n % 2 or n % 4 == 0:
            rows.append(NewEvent(f"t{n}", TOOK, f"u{n}", "x", 20 if n % 8 else 5, None, None, None, 1, True))
    opened = open_store(store)
    opened.append([rows])
    opened.close()
    assert main(["outcome", "--store", store, "--json", "--resamples", "500"]) == 0
    result = json.loads(capsys.readouterr().out)
    a, b = result["variants"]
    assert (a["users"], a["shown"], a["taken"], b["taken"]) == (100, 100, 25, 100)
    assert a["low"] < 0.25 < a["high"]
    (difference,) = result["differences"]
    assert difference["difference"] == pytest.approx(0.75) and difference["p_value"] < 0.01
    assert difference["low"] < 0.75 < difference["high"]


# ---- found by benchmarks/api_fuzz.py --------------------------------------------------------------------------------


@pytest.mark.parametrize("user", ["a\nb", "a\r\nb", "\n", "a/b", "../c", "a%2Fb", "<script>", "' OR 1=1 --", "\\u0000"])
def test_any_id_in_a_path(server: Server, user: str) -> None:
    """An id that events may have can be shown and forgotten, too."""
    assert server.post("events", {"user": user, "item": 1})["stored"] == 1
    path = f"/v1/users/{quote(user, safe='')}"
    status, answer, _ = server.ask("GET", path)
    assert (status, answer["user"], answer["interactions"]) == (200, user, 1)
    assert server.ask("DELETE", path)[:2] == (200, {"user": user, "deleted_events": 1})


def test_times_that_no_calendar_has(server: Server) -> None:
    for moment in (
        -62_135_596_801,
        -253_402_300_798,
        253_402_300_800,
        "0001-01-01T00:00+14:00",
        "9999-12-31T23:59-14:00",
    ):
        status, problem, _ = server.ask("POST", "/v1/recommend", {"history": [{"item": 1, "time": moment}]})
        assert status == 422 and problem["detail"], moment
        assert server.ask("POST", "/v1/events", {"user": "early", "item": 1, "time": moment})[0] == 422, moment
    assert server.post("events", {"user": "early", "item": 1, "time": -62_135_596_800})["stored"] == 1
    assert server.ask("GET", "/v1/users/early")[1]["events"][0]["time"] == "0001-01-01T00:00:00+00:00"


def test_whole_numbers_may_be_written_with_a_point(server: Server) -> None:
    """JSON has numbers only, and its schemas take 3.0 for an integer."""
    assert (
        server.post("recommend", {"user": 1.0, "k": 3.0})["items"]
        == server.post("recommend", {"user": 1, "k": 3})["items"]
    )
    assert server.post("similar", {"items": [3.0]})["items"][0]["item"] == 3
    for wrong in ({"user": 1.5}, {"user": 1, "k": 2.5}, {"user": 1, "k": 1e300}):
        assert server.ask("POST", "/v1/recommend", wrong)[0] == 422


def test_the_answer_405_names_all_methods(server: Server) -> None:
    for path, allowed in (
        ("/v1/items", "GET, HEAD, PUT"),
        ("/v1/users/1", "DELETE, GET, HEAD"),
        ("/v1/recommend", "POST"),
    ):
        status, _, headers = server.ask("OPTIONS", path)
        assert (status, headers["allow"]) == (405, allowed)
