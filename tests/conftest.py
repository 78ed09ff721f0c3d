from __future__ import annotations

import os
import sys
from pathlib import Path

# Small tensors are faster on one thread, and tests run beside each other. Set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ray gives its workers the niceness 15, and beside other tests they would hardly run.
os.environ.setdefault("RAY_worker_niceness", "0")

import pytest
from hypothesis import settings

# A deadline measures how busy the machine is, not the code.
settings.register_profile("segue", deadline=None)
settings.load_profile("segue")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the slow tests first when several processes share the tests, so that none is left for the end."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True)
def _short_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out two things that take longer than most tests: the flush of each file, and the picture of each training.

    A flush protects from a loss of power, which no test can cause; tests of a full disk put their own `os.fsync` here.
    Tests marked `pictures` draw `curves.png`, and in all others it is an empty file.
    """
    monkeypatch.setattr("os.fsync", lambda handle: None)
    fitting = sys.modules.get("segue.training.fit")  # not imported here: it loads torch
    if fitting is not None and request.node.get_closest_marker("pictures") is None:
        monkeypatch.setattr(fitting, "draw_curves", lambda path, *_: Path(path).touch())


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of public datasets that SEGUE_TEST_DATA names; without it the test is skipped."""
    folder = os.environ.get("SEGUE_TEST_DATA")
    if not folder:
        pytest.skip("SEGUE_TEST_DATA names no folder of public datasets")
    return Path(folder)
