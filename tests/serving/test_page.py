"""The page at `/` in a real browser: every flow, both themes, a phone and a desk."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

import segue
from segue.data.vocabulary import Vocabulary
from segue.serving.finding import find_items
from segue.serving.page import page_files
from segue.serving.schemas import FindItems
from segue.serving.tokens import new_token
from tests.browsers import WIDTHS, check_accessible, chromium
from tests.helpers import make_dataset
from tests.serving.servers import Server, make_run, serving

SECONDS = 30_000
EVIL = "<script>document.title='run'</script>"
EVIL_USER = "<img src=x onerror=document.title='run'>/../?#&"


def test_files_of_the_page_hold_no_markup_from_texts_and_no_foreign_address() -> None:
    files = page_files()
    assert {"index.html", "page.css", "main.js"} <= set(files)
    for name, file in files.items():
        text = file.content.decode()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", text), name
        addresses = set(re.findall(r"https?://[^\s\"'<>]+", text))
        assert addresses <= {"http://www.w3.org/2000/svg"}, name
        assert not re.search(r"<[^>]*\s(style|on\w+)=", text) or name.endswith(".js"), name


def test_headers_of_the_page(server: Server) -> None:
    status, text, headers = server.ask("GET", "/")
    assert status == 200 and "<title>segue</title>" in text
    policy = headers["content-security-policy"]
    assert "script-src 'self'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    status, _, headers = server.ask("GET", "/page/main.js")
    assert status == 200 and headers["content-type"].startswith("text/javascript")
    for path in ("/page/__init__.py", "/page/../app.py", "/page/%2e%2e%2fapp.py", "/page/", "/page/nothing.js"):
        assert server.ask("GET", path)[0] == 404, path


def test_users_and_items_are_found(server: Server) -> None:
    users = server.ask("GET", "/v1/users?query=2&limit=3")[1]["users"]
    assert [one["user"] for one in users] == [2, 20, 21] and users[0]["interactions"] == 6
    assert len(server.ask("GET", "/v1/users")[1]["users"]) == 20
    assert server.ask("GET", "/v1/users?query=nobody")[1]["users"] == []
    server.post("events", {"user": "newcomer", "item": 3})
    assert server.ask("GET", "/v1/users?query=newc")[1]["users"] == [{"user": "newcomer", "interactions": 1}]
    server.ask("DELETE", "/v1/users/newcomer")
    assert server.ask("GET", "/v1/users?query=newc")[1]["users"] == []
    items = server.ask("GET", "/v1/items?query=1")[1]["items"]
    assert items[0]["item"] == 1 and {one["item"] for one in items} == {1, 10, 11, 12}
    items = server.ask("GET", "/v1/items?id=7&id=unheard&id=2")[1]["items"]
    assert [one["item"] for one in items] == [7, 2] and items[0]["interactions"] > 0
    for query in ("limit=0", "limit=many", "limit=1000", "nothing=1", "variant=none", "id=", "query=%00"):
        assert server.ask("GET", f"/v1/items?{query}")[0] == 422, query


def test_items_are_found_by_their_titles() -> None:
    served: Any = SimpleNamespace(
        catalogue=Vocabulary(["cup", "mug", "tea"]),
        titles=pl.Series(["Green tea cup", "Mug", None]),
        item_counts=np.array([0, 1, 5, 3]),
        recommends=lambda code: True,
    )

    def found(**query: Any) -> list[tuple[Any, Any]]:
        return [(one.item, one.title) for one in find_items(served, FindItems(**query)).items]

    assert found(query="TEA") == [("tea", None), ("cup", "Green tea cup")]
    assert found(query="een t") == [("cup", "Green tea cup")]
    assert found(limit=2) == [("mug", "Mug"), ("tea", None)]
    assert found(id=["tea", "cup"]) == [("tea", None), ("cup", "Green tea cup")]


# ---- in the browser ---------------------------------------------------------------------------------------------


browser = pytest.fixture(scope="module")(chromium)


@pytest.fixture(scope="module")
def two(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two variants: i is followed by i + 1, or by i + 2."""
    folder = tmp_path_factory.mktemp("two")
    runs = f"a={run}:50 b={make_run(folder / 'other', shift=2)}:50"
    with serving(runs, f"sqlite:///{folder / 'events.db'}") as started:
        yield started


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Ids that are markup, and a reader's token."""
    folder = tmp_path_factory.mktemp("evil")
    ids = [EVIL, "\"'><b>bold</b>", "{{ 7 * 7 }}", "javascript:alert(1)", "plain", "日本語 🎉"]
    users = [EVIL_USER, *(f"u{row}" for row in range(11))]
    walks = {user: [ids[(row + step) % 6] for step in range(5)] for row, user in enumerate(users)}
    stamps = {user: [1_700_000_000 + 100 * row + step for step in range(5)] for row, user in enumerate(users)}
    data = make_dataset(walks, times=stamps)
    segue.fit(segue.Markov(), data, quiet=True).save(folder / "run")
    token = new_token(folder / "tokens.toml", "reader", ["read"])
    options = ("--tokens", str(folder / "tokens.toml"))
    with serving(folder / "run", f"sqlite:///{folder / 'events.db'}", *options, token=token) as started:
        yield started


@pytest.fixture(scope="module")
def groceries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """People who take the same things again, and a model that counts that."""
    folder = tmp_path_factory.mktemp("groceries")
    walks = {f"u{row}": ["tea", "milk", f"item-{row}"] * 3 for row in range(9)}
    stamps = {user: [1_700_000_000 + 86_400 * (step // 3) for step in range(9)] for user in walks}
    data = make_dataset(walks, times=stamps)
    segue.fit(segue.PersonalFrequency(), data, quiet=True).save(folder / "run")
    with serving(folder / "run", f"sqlite:///{folder / 'events.db'}") as started:
        yield started


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens a page; its errors of the console, and its width, are checked at the end."""
    opened: list[tuple[Any, list[str], int]] = []

    def opening(url: str, size: str = "desk", theme: str = "light") -> Any:
        width, height = WIDTHS[size]
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=theme, reduced_motion="reduce"
        )
        context.set_default_timeout(SECONDS)
        page = context.new_page()
        errors: list[str] = []
        page.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else 0)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        opened.append((page, errors, width))
        page.errors = errors
        return page

    yield opening
    for page, errors, width in opened:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert errors == []
        page.context.close()


def person(page: Any, user: str) -> None:
    box = page.get_by_role("combobox", name="Person")
    box.fill(user)
    page.locator("[role=option]:visible").first.wait_for()
    box.press("Enter")
    page.locator("#people-flow .recommended").first.wait_for()


def names(page: Any, place: str) -> list[str]:
    return page.locator(f"{place} .name").all_inner_texts()


def first_is(page: Any, column: str, item: int | str) -> None:
    """Wait until an item is the first card of a column."""
    page.locator(f"{column} .cards > li:first-child[data-item='{item}']").wait_for()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", list(WIDTHS))
def test_a_person_and_changes_to_try(two: Server, open_page: Callable[..., Any], size: str, theme: str) -> None:
    page = open_page(two.url, size, theme)
    page.locator("#some-people .chip").first.wait_for()
    check_accessible(page)
    person(page, "3")
    assert page.url.endswith("#/people/3") and page.locator("h1:visible").inner_text() == "What comes next for 3"
    page.select_option("#model", "a")
    page.locator("#people-flow .list h2").filter(has_text="(a)").wait_for()
    assert names(page, "#history > li")[0] == "8"  # 3 … 8
    assert names(page, "#people-flow .list > ol > li")[0] == "9"
    first = page.locator("#people-flow .recommended").first
    assert "8" in first.locator(".reasons").inner_text()
    page.locator("svg.links path.lit").first.wait_for(state="attached")
    assert first.locator(".pick").get_attribute("aria-pressed") == "true"
    check_accessible(page)

    page.get_by_role("button", name="Take out 8").click()
    first_is(page, "#people-flow .list", 8)
    assert "Nothing of it is stored" in page.locator("#changed").inner_text()
    assert page.locator("#people-flow .badge.new, #people-flow .badge.up").count() > 0
    assert "8" in page.locator("#status").inner_text()
    box = page.get_by_role("combobox", name="Put an item in")
    box.fill("11")
    page.locator("[role=option]:visible").first.wait_for()
    box.press("ArrowDown")
    box.press("Enter")
    first_is(page, "#people-flow .list", 12)
    assert names(page, "#history > li")[0] == "11"
    check_accessible(page)
    page.get_by_role("button", name="Put into the history: 12").click()
    first_is(page, "#people-flow .sources", 12)
    page.get_by_role("button", name="Back to the stored history").click()
    first_is(page, "#people-flow .list", 9)
    assert two.ask("GET", "/v1/users/3")[1]["interactions"] == 6

    page.select_option("#beside", "b")
    page.locator(".side-1 .recommended").first.wait_for()
    assert names(page, ".side-0 > ol > li")[0] == "9" and names(page, ".side-1 > ol > li")[0] == "10"
    assert page.locator("#people-flow .badge").count() > 0
    check_accessible(page)

    page.get_by_role("button", name="Similar to 9").first.click()
    page.get_by_role("dialog").wait_for()
    page.locator("#similar-items li, #similar-note:not([hidden])").first.wait_for()
    check_accessible(page)
    page.keyboard.press("Escape")
    assert not page.get_by_role("dialog").is_visible()


@pytest.mark.parametrize("size", list(WIDTHS))
def test_what_people_take_again(groceries: Server, open_page: Callable[..., Any], size: str) -> None:
    """Lists hold items of the history, and reasons say how often each was taken and lead to it."""
    (model,) = groceries.ask("GET", "/v1/models")[1]["models"]
    assert model["repeat_share"] == pytest.approx(6 / 9, abs=1e-3)
    asked = {"user": "u1", "explain": 3, "exclude_seen": False}
    listed = groceries.ask("POST", "/v1/recommend", asked)[1]["items"]
    reasons = {entry["item"]: entry["reasons"][0] for entry in listed if entry["reasons"]}
    assert {reasons[item]["because"] for item in ("tea", "milk", "item-1")} == {"tea", "milk", "item-1"}
    assert reasons["tea"]["kind"] == "repeats" and reasons["tea"]["repeats"].startswith("3 times, last")
    page = open_page(groceries.url, size)
    person(page, "u1")
    seen = page.get_by_role("checkbox", name="Also items of the history")
    assert seen.is_checked()
    assert set(names(page, "#people-flow .list > ol > li")[:3]) == {"tea", "milk", "item-1"}
    assert "3 times, last" in page.locator("#people-flow .recommended .reasons").first.inner_text()
    page.locator("svg.links path.lit").first.wait_for(state="attached")
    check_accessible(page)
    seen.uncheck()
    first_is(page, "#people-flow .list", "item-0")
    assert not {"tea", "milk"} & set(names(page, "#people-flow .list > ol > li"))
    page.get_by_role("link", name="Service").click()
    page.get_by_role("link", name="People").click()
    assert not seen.is_checked()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", list(WIDTHS))
def test_a_basket_and_the_state_of_the_service(
    server: Server, open_page: Callable[..., Any], size: str, theme: str
) -> None:
    page = open_page(server.url, size, theme)
    page.get_by_role("link", name="Basket").click()
    page.locator("#basket-start .chip").first.wait_for()
    check_accessible(page)
    box = page.get_by_role("combobox", name="Put into the basket")
    box.fill("5")
    page.locator("[role=option]:visible").first.wait_for()
    box.press("Enter")
    page.locator("#basket-flow .recommended").first.wait_for()
    assert names(page, "#basket-items > li") == ["5"]
    assert names(page, "#basket-flow .list > ol > li")[0] == "6"
    assert names(page, "#steps")[:2] == ["6", "7"]
    page.get_by_role("button", name="Put into the basket: 6").first.click()
    first_is(page, "#basket-flow .list", 7)
    assert names(page, "#basket-items > li") == ["5", "6"]
    check_accessible(page)
    page.get_by_role("button", name="Take out 6").click()
    first_is(page, "#basket-flow .list", 6)

    page.get_by_role("link", name="Service").click()
    page.locator(".tile").first.wait_for()
    text = page.locator("#tiles").inner_text()
    assert "ready" in text and "A list takes" in text
    model = page.locator("#models").inner_text()
    assert "markov" in model and "24 users" in model and "12 items" in model
    assert "post-recommend" in page.locator("#routes").inner_text()
    check_accessible(page)


def test_the_keyboard_alone_is_enough(server: Server, open_page: Callable[..., Any]) -> None:
    page = open_page(server.url)
    page.locator("#some-people .chip").first.wait_for()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.innerText") == "Skip to the content"
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.getAttribute('role')") == "combobox":
            break
    page.keyboard.type("4")
    page.locator("[role=option]:visible").first.wait_for()
    page.keyboard.press("ArrowDown")
    focused = page.locator(":focus")
    active = focused.get_attribute("aria-activedescendant")
    assert page.locator(f"#{active}").get_attribute("aria-selected") == "true"
    page.keyboard.press("Enter")
    page.locator("#people-flow .recommended").first.wait_for()
    page.locator("#people-flow .recommended .pick").nth(1).focus()
    page.keyboard.press("Enter")
    assert page.locator("#people-flow .recommended .pick").nth(1).get_attribute("aria-pressed") == "true"
    opener = page.locator("#people-flow .recommended .icon").first
    opener.focus()
    page.keyboard.press("Enter")
    page.get_by_role("dialog").wait_for()
    page.keyboard.press("Escape")
    assert opener.evaluate("button => button === document.activeElement")


def test_the_theme_is_kept(server: Server, open_page: Callable[..., Any]) -> None:
    page = open_page(server.url, theme="light")
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.get_by_role("button", name="Dark colours").click()
    dark = page.evaluate(background)
    assert dark != light
    page.reload()
    page.get_by_role("button", name="Light colours").wait_for()
    assert page.evaluate(background) == dark


def test_a_user_without_a_history(server: Server, open_page: Callable[..., Any]) -> None:
    page = open_page(f"{server.url}/#/people/stranger")
    page.locator("#people-flow .recommended").first.wait_for()
    assert "popularity" in page.locator("#people-flow .list h2").inner_text()
    assert "no history" in page.locator("#person-facts").inner_text()


def test_tokens_and_ids_that_are_markup(evil: Server, open_page: Callable[..., Any]) -> None:
    page = open_page(evil.url)
    page.get_by_role("textbox", name="Token").wait_for()
    check_accessible(page)
    page.get_by_role("textbox", name="Token").fill("segue_wrong")
    page.get_by_role("button", name="Use it").click()
    page.get_by_text("does not know this token").wait_for()
    page.get_by_role("textbox", name="Token").fill(evil.token)
    page.get_by_role("button", name="Use it").click()
    page.locator("#some-people .chip").first.wait_for()
    assert evil.token not in page.content() and page.evaluate("localStorage.length") == 0
    page.locator("#some-people .chip").filter(has_text=EVIL_USER).click()
    page.locator("#people-flow .recommended").first.wait_for()
    assert page.locator("h1:visible").inner_text() == f"What comes next for {EVIL_USER}"
    shown = names(page, "#history > li") + names(page, "#people-flow .list > ol > li")
    assert EVIL in shown and "{{ 7 * 7 }}" in shown
    assert page.locator("main b, main img, main script").count() == 0
    page.locator("#people-flow .recommended .icon").first.click()
    page.locator("#similar-items li, #similar-note:not([hidden])").first.wait_for()
    page.keyboard.press("Escape")
    page.goto(f"{evil.url}/#/basket")
    box = page.get_by_role("combobox", name="Put into the basket")
    box.fill(EVIL)
    page.locator("[role=option]:visible").first.click()
    page.locator("#basket-flow .recommended").first.wait_for()
    assert names(page, "#basket-items > li") == [EVIL]
    assert page.title() == "Basket · segue"
    page.errors[:] = [error for error in page.errors if "401" not in error]  # the browser logs these answers, late
