"""What the site adds to Sphinx: help of commands, links out of `docs/`, clean types in signatures, and `llms.txt`."""

from __future__ import annotations

import dataclasses
import json
import os
import posixpath
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).parent.parent.parent
WHOLE = {"changelog": "CHANGELOG.md", "contributing": "CONTRIBUTING.md"}
"""Pages whose content is a file at the top of the repository."""

LINK = re.compile(r"(\]\()(?!https?:|mailto:|#|/)([^)\s#]+)(#[^)\s]*)?(\))")

ALL_HELP = """
import contextlib, io, json, sys
from segue.cli.main import COMMANDS, main
pages = {}
for name in ["", *COMMANDS]:
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        main([*name.split(), "--help"])
    pages[name] = text.getvalue()
print(json.dumps(pages))
"""


# ---- help of the commands -------------------------------------------------------------------------------------------


def command_help(app: Sphinx) -> dict[str, str]:
    """Help of every command by its name, and that of `segue` alone under an empty name."""
    if not hasattr(app, "segue_help"):
        environment = {**os.environ, "COLUMNS": "88", "NO_COLOR": "1"}
        done = subprocess.run(
            [sys.executable, "-c", ALL_HELP], capture_output=True, text=True, check=True, env=environment
        )
        app.segue_help = json.loads(done.stdout)  # type: ignore[attr-defined]
    return app.segue_help  # type: ignore[attr-defined,no-any-return]


class CommandReference(SphinxDirective):
    """A section for `segue` and each of its commands, with the help that it prints."""

    def run(self) -> list[nodes.Node]:
        sections: list[nodes.Node] = []
        for name, text in command_help(self.env.app).items():
            title = f"segue {name}".strip()
            section = nodes.section(ids=[nodes.make_id(title)], names=[title])
            section += nodes.title(title, title)
            section += nodes.literal_block(text, text, language="text", classes=["segue-help"])
            self.state.document.note_explicit_target(section)
            sections.append(section)
        return sections


# ---- links ----------------------------------------------------------------------------------------------------------


def site_links(text: str, folder: str, repository: str) -> str:
    """Relative links of a page that leave `docs/` lead to a page of the site or to the file in the repository.

    Parameters
    ----------
    text
        Markdown of the page.
    folder
        Folder of the page in the repository: "docs", "docs/tutorials", or "" for the top.
    repository
        Address of the repository.
    """
    own = {file: f"docs/{page}.md" for page, file in WHOLE.items()}

    def written(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, match[2]))
        path = own.get(path, path)
        anchor = match[3] or ""
        if path.startswith("docs/"):
            here = "docs" if folder == "" else folder
            return f"{match[1]}{posixpath.relpath(path, here)}{anchor}{match[4]}"
        kind = "tree" if (ROOT / path).is_dir() else "blob"
        return f"{match[1]}{repository}/{kind}/main/{path}{anchor}{match[4]}"

    return LINK.sub(written, text)


def read_source(app: Sphinx, name: str, source: list[str]) -> None:
    """Take in the files at the top of the repository, and mend links that leave `docs/`."""
    if not (Path(app.srcdir) / f"{name}.md").is_file():
        return
    repository = f"https://github.com/{app.config.html_context['github_user']}/{app.config.html_context['github_repo']}"
    if name in WHOLE:
        text = (ROOT / WHOLE[name]).read_text(encoding="utf-8")
        source[0] = site_links(text, "", repository)
        return
    source[0] = site_links(source[0], posixpath.dirname(f"docs/{name}"), repository)


def depend_on_files(app: Sphinx, environment: BuildEnvironment, *names: Any) -> list[str]:
    """Read the pages again that are made from other files."""
    return [name for name in (*WHOLE, "cli") if name in environment.found_docs]


# ---- signatures -----------------------------------------------------------------------------------------------------


def plain_signature(
    app: Sphinx, what: str, name: str, instance: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Leave the ranges out of annotated types; settings have no signature, since their fields are below."""
    if isinstance(instance, type) and _settings(instance):
        return "(…)", None
    return _plain(signature), _plain(returns)


def _settings(instance: Any) -> dict[str, Any]:
    """Types of the fields of a config by name; none if it is no config."""
    from segue.settings import Settings, field_types

    known = isinstance(instance, type) and issubclass(instance, Settings) and dataclasses.fields(instance)
    return field_types(instance) if known else {}


def field_type(name: str) -> Any:
    """The type of "segue.SASRec.width"; None if the name is no field of a config."""
    import segue

    parts = name.split(".")
    if len(parts) != 3 or parts[0] != "segue" or parts[1] not in segue.__all__:
        return None
    return _settings(getattr(segue, parts[1])).get(parts[2])


def plain_field(app: Sphinx, domain: str, kind: str, node: nodes.Element) -> None:
    """Leave the type out of the heading of a setting: the text names its range in words."""
    if domain != "py" or kind != "attribute":
        return
    for signature in node.parent.findall(addnodes.desc_signature):
        if field_type(f"{signature['module']}.{signature['fullname']}") is None:
            continue
        for part in list(signature.findall(addnodes.desc_annotation)):
            if part.astext().strip().startswith(":"):
                part.parent.remove(part)


def _plain(text: str | None) -> str | None:
    """The text with the first argument of each `Annotated[…]` in its place."""
    while text is not None and "Annotated[" in text:
        start = text.index("Annotated[")
        depth, end, comma = 0, len(text), None
        for place in range(start + len("Annotated"), len(text)):
            if text[place] in "[(":
                depth += 1
            elif text[place] in "])":
                depth -= 1
                if depth == 0:
                    end = place
                    break
            elif text[place] == "," and depth == 1 and comma is None:
                comma = place
        text = text[:start] + text[start + len("Annotated[") : comma or end] + text[end + 1 :]
    return text


_TAKEN: dict[str, list[str]] = {}
"""Docstrings of attributes by their names, as they were before napoleon."""


def take_docstring(app: Sphinx, what: str, name: str, instance: Any, options: Any, lines: list[str]) -> None:
    """Keep the docstring of an attribute from napoleon, which would read "Text: more" as a type and its description."""
    if what in ("attribute", "data", "property") and not any(line.startswith("---") for line in lines):
        _TAKEN[name] = list(lines)


IVAR = re.compile(r"^:ivar ([\w]+(?:, [\w]+)+): ?(.*)$")


def plain_docstring(app: Sphinx, what: str, name: str, instance: Any, options: Any, lines: list[str]) -> None:
    """Escape bars (absolute values), which reStructuredText takes for substitutions; part attributes listed together.

    It runs behind napoleon, which parts parameters but not attributes.
    """
    from segue.settings import expected

    kind = field_type(name) if what == "attribute" else None
    original = _TAKEN.pop(name, None)
    if original is not None:
        lines[:] = original
    if kind is not None:
        words = expected(kind).replace("*", "\\*")
        lines[:] = [*"\n".join(lines).rstrip().splitlines(), f"*({words})*", ""]
    written: list[str] = []
    place = 0
    while place < len(lines):
        line = lines[place] if ">>>" in lines[place] else lines[place].replace("|", "\\|")
        together = IVAR.match(line)
        place += 1
        if together is None:
            written.append(line)
            continue
        text = []
        while place < len(lines) and lines[place].startswith(" "):
            text.append(lines[place])
            place += 1
        for one in together[1].split(", "):
            written += [f":ivar {one}: {together[2]}".rstrip(), *text]
    lines[:] = written


# ---- llms.txt -------------------------------------------------------------------------------------------------------


def write_llms(app: Sphinx, error: Exception | None) -> None:
    """Write `llms.txt`: the pages with their titles and first sentences, and the address of their plain text."""
    if error is not None or app.builder.name != "html":
        return
    environment = app.env
    lines = [
        "# segue",
        "",
        "> Sequential recommendation for Python: from a log of interactions to recommendations with reasons.",
        "",
        "Each link leads to the plain text of a page. Public names are those of `segue.__all__`.",
    ]
    for heading, names in _sections(environment).items():
        lines += ["", f"## {heading}", ""]
        for name in names:
            suffix = Path(environment.doc2path(name)).suffix
            title = environment.titles[name].astext()
            lines.append(f"- [{title}](_sources/{name}{suffix}.txt): {_summary(environment, name)}".rstrip(": "))
    (Path(app.outdir) / "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _sections(environment: BuildEnvironment) -> dict[str, list[str]]:
    """Pages by the top page that they are under, in the order of the site."""
    top = environment.toctree_includes.get("index", [])
    sections = {}
    for name in top:
        pages, waiting = [], [name]
        while waiting:
            page = waiting.pop(0)
            pages.append(page)
            waiting = [*environment.toctree_includes.get(page, []), *waiting]
        sections[environment.titles[name].astext()] = pages
    return sections


def _summary(environment: BuildEnvironment, name: str) -> str:
    """The first sentence of a page."""
    for paragraph in environment.get_doctree(name).findall(nodes.paragraph):
        text = " ".join(paragraph.astext().split())
        if text:
            return re.split(r"(?<=[.!?]) ", text)[0][:200]
    return ""


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("segue-commands", CommandReference)
    app.connect("source-read", read_source)
    app.connect("env-get-outdated", depend_on_files)
    app.connect("autodoc-process-signature", plain_signature)
    app.connect("autodoc-process-docstring", take_docstring, priority=400)
    app.connect("autodoc-process-docstring", plain_docstring, priority=900)
    app.connect("object-description-transform", plain_field)
    app.connect("build-finished", write_llms)
    return {"parallel_read_safe": False, "parallel_write_safe": True}
