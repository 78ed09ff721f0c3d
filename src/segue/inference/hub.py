"""Recommenders on the Hugging Face hub: `hf://owner/name` is the folder of a Recommender there.

It needs `pip install 'segue[hub]'`. The client of the hub does the transfers, reads its token (`hf auth login`, or
`HF_TOKEN`), and keeps what it fetched. `HF_ENDPOINT` names another hub with the same API.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import ModuleType

from segue.errors import ConfigError, StorageError

SCHEME = "hf://"
FILES = ("README.md", "recommender/**")
"""Files of a repository that segue writes and reads."""
_ADDRESS = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")


def parse(address: str) -> tuple[str, str | None]:
    """Repository and revision of "hf://owner/name" or "hf://owner/name@revision"; the scheme may be left out.

    Raises
    ------
    ConfigError
        It is no such address.
    """
    match = _ADDRESS.fullmatch(address.removeprefix(SCHEME))
    if match is None:
        raise ConfigError(f"{address!r} is no place on a hub: expected hf://owner/name, or hf://owner/name@revision.")
    return match[1], match[2]


def pull(address: str) -> Path:
    """Fetch the folder of a Recommender, or take it from the cache, and return its place.

    Raises
    ------
    ConfigError
        The address is none, or huggingface_hub is not installed.
    StorageError
        The hub does not answer, or has no such repository or revision.
    """
    repository, revision = parse(address)
    hub = _client()
    try:
        place = hub.snapshot_download(
            repository, revision=revision, allow_patterns=list(FILES), endpoint=os.environ.get("HF_ENDPOINT")
        )
    except (hub.errors.HfHubHTTPError, hub.errors.LocalEntryNotFoundError, OSError, ValueError) as error:
        raise StorageError(f"{address} cannot be fetched: {_first_line(error)}") from None
    if not (Path(place) / "recommender").is_dir():
        raise StorageError(f"{address} holds no recommender: expected a repository that `segue push` wrote.")
    return Path(place)


def push(folder: Path, repository: str, *, private: bool = True) -> str:
    """Write a folder with `README.md` and `recommender/` to a repository, which is made if need be.

    Files that an earlier push wrote and this one lacks are removed in the same commit.

    Returns
    -------
    address
        Web address of the commit.

    Raises
    ------
    ConfigError
        The name is none, or huggingface_hub is not installed.
    StorageError
        The hub does not answer or does not allow it.
    """
    name, revision = parse(repository)
    if revision is not None:
        raise ConfigError(f"{repository}: a push goes to the main revision; leave out @{revision}.")
    hub = _client()
    api = hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    try:
        api.create_repo(name, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=name, folder_path=folder, allow_patterns=list(FILES), delete_patterns=["recommender/**"]
        )
    except (hub.errors.HfHubHTTPError, hub.errors.LocalTokenNotFoundError, OSError, ValueError) as error:
        raise StorageError(f"{repository} cannot be written: {_first_line(error)}") from None
    return str(commit.commit_url)


def _client() -> ModuleType:
    """The client of the hub.

    Raises
    ------
    ConfigError
        It is not installed.
    """
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError:
        raise ConfigError("the hub needs huggingface_hub: pip install 'segue[hub]'.") from None
    return huggingface_hub


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
