"""The picture of docs/serving.md: the page of the service about a user of the demo's shop.

    make serve-demo
    python docs/images/serving_page.py http://127.0.0.1:8000 user-0001 docs/images/serving-page.png

Needs Chromium (the command `chromium`, or the one that CHROMIUM names), Playwright, and Pillow.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

WIDTH, HEIGHT, COLOURS = 1240, 900, 64


def main() -> None:
    """Take the picture, and keep few colours, so that the file is small."""
    address, user, out = sys.argv[1:]
    program = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, device_scale_factor=1.5)
        page.goto(f"{address}/#/people/{user}")
        page.locator("#people-flow .recommended").first.wait_for()
        page.wait_for_timeout(500)
        shot = page.screenshot()
        browser.close()
    picture = Image.open(io.BytesIO(shot)).convert("RGB")
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(Path(out), optimize=True)


if __name__ == "__main__":
    main()
