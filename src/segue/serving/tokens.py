"""Tokens: secrets of 256 random bits, of which the file holds only hashes.

The file is TOML, with a table for each token:

    [tokens.shop]
    hash = "sha256:…"
    rights = ["read", "write"]
    rate = 100
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from segue.errors import ConfigError
from segue.files import atomic_file
from segue.plain_text import read_text

Right = Literal["read", "write", "admin"]
RIGHTS: tuple[Right, ...] = ("read", "write", "admin")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,50}")
_PREFIX = "segue_"


@dataclass(frozen=True)
class Token:
    """Token as the service knows it.

    Attributes
    ----------
    name
        Name for logs and metrics.
    digest
        SHA-256 of the token.
    rights
        Rights: "read" asks for answers, "write" stores events, "admin" forgets users and reloads models.
    rate
        Requests a second; None for the rate of the service.
    """

    name: str
    digest: bytes
    rights: frozenset[str]
    rate: float | None = None


def digest_of(token: str) -> bytes:
    """SHA-256 of a token. Tokens are random and long, so no slow hash is needed."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def read_tokens(path: Path) -> tuple[Token, ...]:
    """Read a file of tokens.

    Raises
    ------
    ConfigError
        The file cannot be read, or a token in it is not complete.
    """
    try:
        content = tomllib.loads(read_text(path, error=ConfigError))
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file; `segue token new --tokens {path}` makes one.") from None
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} is no file of tokens: {error}.") from None
    tables = content.get("tokens")
    if not isinstance(tables, dict) or not tables:
        raise ConfigError(f"{path} has no tokens; `segue token new --tokens {path}` makes one.")
    return tuple(_token(path, name, table) for name, table in tables.items())


def _token(path: Path, name: str, table: Any) -> Token:
    fields = table if isinstance(table, dict) else {}
    digest = str(fields.get("hash", "")).removeprefix("sha256:")
    rights, rate = fields.get("rights"), fields.get("rate")
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise ConfigError(f'{path}: the token {name!r} has no hash: expected "sha256:" and 64 hexadecimal digits.')
    if not isinstance(rights, list) or not rights or not all(right in RIGHTS for right in rights):
        raise ConfigError(f"{path}: the token {name!r} has the rights {rights!r}: expected some of {list(RIGHTS)}.")
    if rate is not None and (isinstance(rate, bool) or not isinstance(rate, int | float) or not rate > 0):
        raise ConfigError(f"{path}: the token {name!r} has the rate {rate!r}: expected a number above 0.")
    return Token(name, bytes.fromhex(digest), frozenset(rights), rate)


def new_token(path: Path, name: str, rights: Sequence[str]) -> str:
    """Add a token to a file, which is made if it is not there, and return the token. It is stored nowhere.

    Raises
    ------
    ConfigError
        The name is taken or has other characters than letters, digits, "-" and "_", or the file is no file of tokens.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"name={name!r}: expected up to 50 letters, digits, '-' and '_'.")
    existing = read_tokens(path) if path.exists() else ()
    if name in {token.name for token in existing}:
        raise ConfigError(f"{path} has a token {name!r} already: choose another name, or delete its table there.")
    token = _PREFIX + secrets.token_urlsafe(32)
    listed = ", ".join(f'"{right}"' for right in RIGHTS if right in rights)
    table = f'[tokens.{name}]\nhash = "sha256:{digest_of(token).hex()}"\nrights = [{listed}]\n'
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    with atomic_file(path) as file:
        file.write_text(f"{before}\n{table}" if before else table, encoding="utf-8")
    path.chmod(0o600)
    return token


def find(tokens: Sequence[Token], token: str) -> Token | None:
    """The known token that is equal. Every known one is compared, in constant time."""
    digest = digest_of(token)
    found: Token | None = None
    for known in tokens:
        if hmac.compare_digest(known.digest, digest):
            found = known
    return found
