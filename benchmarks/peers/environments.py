"""Virtual environments of the other libraries, made once from the package index with the tested versions."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).parent
DEFAULT = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "segue-peers"
WITHOUT_DEPENDENCIES = frozenset({"recommenders"})
"""Packages whose requirements file is complete. The package itself asks for far more (notebooks, other models)."""


def interpreter(name: str, folder: Path) -> Path:
    """Python of a library's environment; the environment is made if it is missing or its requirements have changed."""
    requirements = HERE / "requirements" / f"{name}.txt"
    place = folder.resolve() / name
    python, stamp = place / "bin" / "python", place / "made-from"
    wanted = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"making the environment of {name} in {place}: some minutes", flush=True)
    shutil.rmtree(place, ignore_errors=True)
    venv.create(place, with_pip=True)
    alone = ["--no-deps"] if name in WITHOUT_DEPENDENCIES else []
    command = [str(python), "-m", "pip", "install", "--quiet", *alone, "--requirement", str(requirements)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name} cannot be installed:\n{done.stderr.strip()[-3000:]}")
    stamp.write_text(wanted)
    return python
