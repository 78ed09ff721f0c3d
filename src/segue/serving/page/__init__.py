"""Files of the page at `/`: HTML, a style sheet and ES modules that use only the public API."""

from __future__ import annotations

from importlib.resources import files
from typing import NamedTuple

_TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}

POLICY = (
    b"content-security-policy",
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    b"form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
)
"""Header of the page: only its own files, no text that becomes markup or a script, and no frame around it."""


class PageFile(NamedTuple):
    """Content of a file, and its type for browsers."""

    content: bytes
    media_type: str


def page_files() -> dict[str, PageFile]:
    """All files of the page by name."""
    entries = [(entry, entry.name.rpartition(".")[2]) for entry in files(__name__).iterdir() if entry.is_file()]
    return {entry.name: PageFile(entry.read_bytes(), _TYPES[kind]) for entry, kind in entries if kind in _TYPES}
