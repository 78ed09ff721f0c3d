"""The description for package indexes: the README with links to the pages of the site, and files of the repository."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

FILES = "https://github.com/segue-rec/segue/blob/v{version}/"
RAW = "https://raw.githubusercontent.com/segue-rec/segue/v{version}/"
SITE = "https://segue-rec.github.io/segue/"
RELATIVE = r"(?!https?:|mailto:|#|/)"


def absolute(readme: str, version: str) -> str:
    """Turn links to pages in docs/ into those of the site, and other relative links into those of a version's files."""
    readme = re.sub(r"(\]\(|\bhref=\")docs/([\w/-]+)\.md\b", rf"\g<1>{SITE}\2.html", readme)
    files, raw = FILES.format(version=version), RAW.format(version=version)
    readme = re.sub(rf"(!\[[^\]]*\]\()({RELATIVE}[^)\s]+)", rf"\g<1>{raw}\2", readme)
    readme = re.sub(rf'(\bsrc(?:set)?=")({RELATIVE}[^"]+)', rf"\g<1>{raw}\2", readme)
    readme = re.sub(rf'(\bhref=")({RELATIVE}[^"]+)', rf"\g<1>{files}\2", readme)
    return re.sub(rf"(\]\()({RELATIVE}[^)\s]+)", rf"\g<1>{files}\2", readme)


class ReadmeHook(MetadataHookInterface):
    """Fill in the dynamic field `readme`."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Read README.md and rewrite its links."""
        readme = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        text = absolute(readme, metadata["version"])
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
