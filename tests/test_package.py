from __future__ import annotations

import importlib.metadata
import importlib.resources
import importlib.util
import subprocess
import sys

import pytest

import segue

HEAVY = ("torch", "polars", "matplotlib", "pandas", "pyarrow", "accelerate", "jsonargparse", "rich")


def loaded_by(code: str) -> set[str]:
    """Which of the heavy packages a fresh interpreter holds after running `code`."""
    report = f"{code}\nimport sys\nprint('loaded:', *[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].removeprefix("loaded:").split())


@pytest.mark.parametrize("name", segue.__all__)
def test_every_exported_name_imports(name: str) -> None:
    assert getattr(segue, name) is not None


def test_all_lists_the_lazy_names_and_no_others() -> None:
    assert set(segue.__all__) == set(segue._HOMES) | {"__version__"}
    assert dir(segue) == sorted(segue.__all__)


def test_version_is_that_of_the_distribution() -> None:
    assert segue.__version__ == importlib.metadata.version("segue")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'SASRek'"):
        _ = segue.SASRek


def test_the_package_is_typed() -> None:
    spec = importlib.util.find_spec("segue")
    assert spec is not None
    assert importlib.resources.files("segue").joinpath("py.typed").is_file()


def test_import_loads_nothing_heavy() -> None:
    assert loaded_by("import segue") == set()


@pytest.mark.parametrize("argv", [["--help"], ["--version"], []])
def test_help_loads_nothing_heavy(argv: list[str]) -> None:
    assert loaded_by(f"from segue.cli.main import main\nmain({argv!r})") == set()
