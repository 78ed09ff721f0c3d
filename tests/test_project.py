"""The files at the top of the repository agree with each other."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REPOSITORY = "https://github.com/segue-rec/segue"


def normal(name: str) -> str:
    """The name of a package as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def bounds() -> dict[str, str]:
    """Package → its lower bound, of all requirements and extras."""
    extras = [line for lines in PROJECT["optional-dependencies"].values() for line in lines]
    found: dict[str, str] = {}
    for requirement in [*PROJECT["dependencies"], *extras]:
        if requirement.startswith("segue["):  # extras of extras
            continue
        parts = re.fullmatch(r"([\w.-]+)(?:\[[\w,]+\])?>=([\d.]+)(?:; [^;]+)?", requirement)
        assert parts, f"{requirement}: expected one lower bound"
        name, version = normal(parts[1]), parts[2]
        assert found.setdefault(name, version) == version, f"two bounds of {name}"
    return found


def pins(file: str) -> dict[str, str]:
    """Package → its version in a file of constraints."""
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    return {normal(name): version for name, version in (line.split("==") for line in lines if not line.startswith("#"))}


def number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def test_the_oldest_versions_tested_are_the_oldest_allowed() -> None:
    assert pins("constraints-lowest.txt") == bounds()


def test_the_versions_tested_are_allowed() -> None:
    tested = pins("constraints.txt")
    assert bounds().keys() <= tested.keys()
    assert [name for name, bound in bounds().items() if number(tested[name]) < number(bound)] == []


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert str(citation["version"]) == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert [author["name"] for author in citation["authors"]] == [author["name"] for author in PROJECT["authors"]]
    assert citation["repository-code"] == PROJECT["urls"]["Repository"] == REPOSITORY


def test_links_of_the_description_lead_somewhere_from_anywhere() -> None:
    """Package indexes show the README without its repository."""
    # Not the payload: importlib_metadata, which MLflow imports, takes over and fills in the header alone.
    description = importlib.metadata.metadata("segue")["Description"]
    targets = re.findall(r"\]\(([^)\s]+)", description) + re.findall(r'\b(?:src|srcset|href)="([^"]+)', description)
    assert len(targets) > 5
    assert [target for target in targets if not target.startswith(("https://", "#"))] == []
    ours = [target for target in targets if f"/v{PROJECT['version']}/" in target]
    for target in ours:
        path = target.split(f"/v{PROJECT['version']}/")[1].partition("#")[0]
        assert (ROOT / path).exists(), target
    assert any(target.endswith(".png") for target in ours)


@pytest.mark.parametrize("name", ["tests", "release", "docs"])
def test_workflows_run_targets_that_make_knows(name: str) -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / f"{name}.yml").read_text(encoding="utf-8"))
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    commands = "\n".join(step.get("run", "") for step in steps)
    targets = set(re.findall(r"^make (?:-C \w+ )?(\S+)", commands, re.M))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert targets and targets <= set(re.findall(r"^([a-z][a-z-]*):", makefile, re.M))
    assert all(re.search(r"@(v\d+|release/v\d+)$", step["uses"]) for step in steps if "uses" in step)


def test_the_pythons_tested_are_those_that_are_named() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8"))
    named = [re.findall(r":: (3\.\d+)$", line) for line in PROJECT["classifiers"]]
    assert workflow["jobs"]["tests"]["strategy"]["matrix"]["python"] == [found[0] for found in named if found]


@pytest.mark.parametrize(
    "file", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda file: file.stem
)
def test_issue_forms_have_what_github_asks_for(file: Path) -> None:
    form = yaml.safe_load(file.read_text(encoding="utf-8"))
    if file.stem == "config":
        assert all(link.keys() == {"name", "url", "about"} for link in form["contact_links"])
        return
    assert {"name", "description", "body"} <= form.keys()
    fields = [part["id"] for part in form["body"]]
    assert len(fields) == len(set(fields))
    assert all(part["attributes"]["label"] for part in form["body"])
