"""The report page in a real browser: a phone and a desk, both themes, no network."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.report.pages import full_report

WIDTHS = {"phone": (390, 844), "desk": (1440, 900)}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = os.environ.get("SEGUE_TEST_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    with playwright.sync_playwright() as started:
        program = program or started.chromium.executable_path
        if not Path(program).exists():
            pytest.skip("no Chromium: install Debian's package, or name the program in SEGUE_TEST_CHROMIUM")
        opened = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return full_report(tmp_path_factory.mktemp("browser") / "report.html")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", list(WIDTHS))
def test_the_page_fits_is_quiet_and_open_to_all(browser: Any, report: Path, size: str, theme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.base", reason="axe-playwright-python is not installed")
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
    page.evaluate(Path(axe.__file__).with_name("axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []
    assert errors == []
    context.close()
