"""The site has every page and every public name, and its settings load; `make docs` builds it."""

from __future__ import annotations

import re
import runpy
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import segue
from segue.cli.main import COMMANDS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = {
    page.relative_to(DOCS).with_suffix("").as_posix()
    for page in [*DOCS.rglob("*.md"), *DOCS.rglob("*.rst")]
    if not page.relative_to(DOCS).parts[0].startswith("_")
}
TREE = re.compile(r"^(?:```\{toctree\}|\.\. toctree::)\n(.*?)(?:^```$|\Z)", re.M | re.S)


def settings() -> dict[str, Any]:
    """The settings of the site; they need no Sphinx."""
    return runpy.run_path(str(DOCS / "conf.py"))


def children(page: str) -> list[str]:
    """Pages in the toctrees of a page."""
    file = next(path for path in (DOCS / f"{page}.md", DOCS / f"{page}.rst") if path.exists())
    names = [
        line.strip()
        for tree in TREE.findall(file.read_text(encoding="utf-8"))
        for line in tree.splitlines()
        if line.strip() and not line.strip().startswith(":")
    ]
    folder = Path(page).parent
    return [(folder / name).as_posix() for name in names]


def test_the_settings_load(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PATH", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "kept")
    monkeypatch.setattr("sys.path", list(sys.path))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    loaded = settings()
    assert loaded["release"] == project["version"]
    for name in ("html_favicon", "html_static_path"):
        value = loaded[name]
        assert all((DOCS / path).exists() for path in ([value] if isinstance(value, str) else value))


def test_every_page_is_in_a_toctree_once() -> None:
    waiting, seen = ["index"], []
    while waiting:
        page = waiting.pop()
        seen.append(page)
        waiting += children(page)
    assert sorted(seen) == sorted(PAGES)


def test_every_public_name_is_in_the_reference() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "api").glob("*.rst"))
    names = re.findall(r"^\.\. (?:auto\w+|data):: segue\.(\w+)$", text, re.M)
    assert sorted(names) == sorted(segue.__all__)


def test_links_between_pages_lead_somewhere() -> None:
    for page in DOCS.rglob("*.md"):
        if "_build" in page.parts:
            continue
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
            assert "://" in target or (page.parent / target).exists(), f"{page}: {target}"


def test_lines_of_pages_are_short() -> None:
    pages = [*(DOCS / "tutorials").glob("*.md"), *(DOCS / "concepts").glob("*.md"), *(DOCS / "how-to").glob("*.md")]
    long = [f"{page.name}: {line}" for page in pages for line in page.read_text().splitlines() if len(line) > 120]
    assert not long


def test_notebooks_are_notebooks() -> None:
    """Without the heading, the cells would be shown and not run."""
    for page in (DOCS / "tutorials").glob("*.md"):
        text = page.read_text(encoding="utf-8")
        assert text.startswith("---\njupytext:") == ("{code-cell}" in text), page.name


@pytest.mark.parametrize("page", sorted((DOCS / "how-to").glob("*.md")) + sorted((DOCS / "concepts").glob("*.md")))
def test_python_in_the_pages_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for block in re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S):
        (tmp_path / "page.py").write_text(block, encoding="utf-8")
        runpy.run_path(str(tmp_path / "page.py"), run_name="__main__")


def test_commands_in_the_pages_exist() -> None:
    for page in [*DOCS.glob("how-to/*.md"), DOCS / "index.md", DOCS / "install.md"]:
        shell = "".join(re.findall(r"^```bash\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S))
        for command in re.findall(r"^segue (\w+)", shell, re.M):
            assert command in COMMANDS, f"{page.name}: {command}"
