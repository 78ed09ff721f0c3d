"""A real browser for the tests of pages, and the check of their accessibility."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

WIDTHS = {"phone": (390, 844), "desk": (1440, 900)}
"""Widths and heights of screens, in pixels."""


def chromium() -> Iterator[Any]:
    """Yield a Chromium without a window; the test is skipped if there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = os.environ.get("SEGUE_TEST_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    with playwright.sync_playwright() as started:
        program = program or started.chromium.executable_path
        if not Path(program).exists():
            pytest.skip("no Chromium: install Debian's package, or name the program in SEGUE_TEST_CHROMIUM")
        opened = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


def check_accessible(page: Any) -> None:
    """Fail if axe-core finds a violation in an open page."""
    axe = pytest.importorskip("axe_playwright_python.base", reason="axe-playwright-python is not installed")
    page.evaluate(Path(axe.__file__).with_name("axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []
