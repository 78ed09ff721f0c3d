"""The rooms of docs/architecture.md are those of the code, and nothing imports from a room below its own."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import segue

SOURCE = Path(segue.__file__).parent
PAGE = Path(__file__).parent.parent / "docs" / "architecture.md"
EVERYWHERE = {"__init__.py", "__main__.py"}
"""Files at the top that only hand names on."""


def rooms() -> list[list[str]]:
    """The rows of the table, from the top: files and folders that stand at the same height."""
    table = re.search(r"^\| room \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE.read_text(encoding="utf-8"), re.M)
    assert table, f"{PAGE} has no table of rooms"
    return [re.findall(r"`([a-z_]+(?:\.py|/))`", row.split("|")[1]) for row in table[1].splitlines()]


@cache
def floors() -> dict[str, int]:
    """Room → how far down the table it stands."""
    return {room.removesuffix("/").removesuffix(".py"): row for row, named in enumerate(rooms()) for room in named}


@cache
def imports(file: Path) -> list[tuple[int, str]]:
    """(line, module of segue) of every import in a file: at the top, within functions and for types alone."""
    return list(_imports(file))


def _imports(file: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno} imports relatively"
            names = [node.module or ""] if node.module != "segue" else [f"segue.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] == "segue")


def files() -> list[Path]:
    return [file for file in sorted(SOURCE.rglob("*.py")) if str(file.relative_to(SOURCE)) not in EVERYWHERE]


def test_the_table_names_every_room() -> None:
    there = {path.name + "/" * path.is_dir() for path in SOURCE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert {room for named in rooms() for room in named} == there - EVERYWHERE - {"__pycache__/"}


@pytest.mark.parametrize("file", files(), ids=lambda file: file.relative_to(SOURCE).as_posix())
def test_imports_come_from_rooms_above(file: Path) -> None:
    floor = floors()
    room = file.relative_to(SOURCE).parts[0].removesuffix(".py")
    wrong = [f"line {line}: {module}" for line, module in imports(file) if floor[module.split(".")[1]] > floor[room]]
    assert not wrong, f"{file.name} imports from below: {', '.join(wrong)}"


@cache
def modules() -> dict[str, set[str]]:
    """Module → modules of segue that it imports; a package stands for its `__init__`."""
    named = {".".join(file.relative_to(SOURCE).with_suffix("").parts): file for file in files()}
    known = {name.removesuffix(".__init__"): file for name, file in named.items()}
    graph: dict[str, set[str]] = {}
    for name, file in known.items():
        targets = {module.removeprefix("segue.") for _, module in imports(file)}
        graph[name] = {target for target in targets if target in known and target != name}
    return graph


def rooms_within() -> list[str]:
    """Every folder of the source, the source itself first."""
    folders = {file.relative_to(SOURCE).parent.as_posix() for file in files()}
    return sorted(folders | {"."})


@pytest.mark.parametrize("folder", rooms_within())
def test_nothing_in_a_room_imports_in_a_circle(folder: str) -> None:
    """Files and inner rooms of a folder are nodes; an import within an inner room is that room's own affair."""
    depth = 0 if folder == "." else folder.count("/") + 1
    inside = [] if folder == "." else folder.split("/")

    def node(module: str) -> str | None:
        parts = module.split(".")
        return parts[depth] if parts[:depth] == inside and len(parts) > depth else None

    graph: dict[str, set[str]] = {}
    for module, targets in modules().items():
        start = node(module)
        if start is not None:
            ends = {end for end in map(node, targets) if end is not None and end != start}
            graph.setdefault(start, set()).update(ends)
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"a circle in {folder}: {' → '.join(error.args[1])}")


def test_no_command_imports_another() -> None:
    from segue.cli.main import COMMANDS

    found = {
        (file.stem, module.removeprefix("segue.cli."))
        for file in (SOURCE / "cli").glob("*.py")
        for _, module in imports(file)
        if module.removeprefix("segue.cli.") in COMMANDS
    }
    assert not found
