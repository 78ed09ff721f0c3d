"""The report page in a real browser: a phone and a desk, both themes, no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.browsers import WIDTHS, check_accessible, chromium
from tests.evaluation.report.pages import full_report

browser = pytest.fixture(scope="module")(chromium)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return full_report(tmp_path_factory.mktemp("browser") / "report.html")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", list(WIDTHS))
def test_the_page_fits_is_quiet_and_open_to_all(browser: Any, report: Path, size: str, theme: str) -> None:
    width, height = WIDTHS[size]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=theme)
    page = context.new_page()
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(report.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert requests == [report.as_uri()], "the page is one file"
    assert page.evaluate("getComputedStyle(document.body).margin") == "0px", "the style is allowed by the policy"
    for name in ("metric", "SASRec"):
        box = page.locator("#results thead th", has_text=name).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width, f"{name} is on the screen"
    assert page.locator("#results tbody tr").first.locator("td").first.is_visible()
    page.locator(".meanings summary").first.click()
    check_accessible(page)
    assert errors == []
    context.close()
