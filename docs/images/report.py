"""The README's picture: the demo's report page, its results, examples and curves, as one PNG file.

    segue demo
    python docs/images/report.py demo/report.html docs/images/report.png

Needs Chromium (the command `chromium`, or the one that CHROMIUM names) and Pillow, which comes with matplotlib.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageChops

WIDTH, HEIGHT, SCALE, COLOURS = 1180, 2400, 1.5, 64
STYLE = """<style>
  nav, footer, .note, .meanings, #comparison, #parts, #data, #settings, #results .scroll { display: none !important; }
  main { max-width: none; padding: 1.6rem 2rem; }
  h2 { margin: 1.5rem 0 .7rem; }
  #training figure:nth-child(n+4) { display: none; }
  #examples .pair { grid-template-columns: repeat(3, 1fr); }
</style></head>"""


def main() -> None:
    """Take the picture, cut off what is empty, and keep few colours, so that the file is small."""
    page, out = map(Path, sys.argv[1:])
    with tempfile.TemporaryDirectory() as folder:
        styled, shot = Path(folder) / "page.html", Path(folder) / "page.png"
        # The page's policy allows no style but its own.
        content = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text(encoding="utf-8"))
        styled.write_text(content.replace("</head>", STYLE), encoding="utf-8")
        browser = [os.environ.get("CHROMIUM", "chromium"), "--headless", "--no-sandbox", "--hide-scrollbars"]
        size = [f"--window-size={WIDTH},{HEIGHT}", f"--force-device-scale-factor={SCALE}"]
        subprocess.run([*browser, *size, f"--screenshot={shot}", styled.as_uri()], check=True, capture_output=True)
        picture = Image.open(shot).convert("RGB")
    empty = Image.new("RGB", picture.size, picture.getpixel((0, 0)))
    box = ImageChops.difference(picture, empty).getbbox()
    assert box is not None, f"{page} shows nothing"
    picture = picture.crop((0, 0, picture.width, min(picture.height, box[3] + round(24 * SCALE))))
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(out, optimize=True)


if __name__ == "__main__":
    main()
