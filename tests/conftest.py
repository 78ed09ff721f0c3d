from __future__ import annotations

import os
from pathlib import Path

# Small tensors are faster on one thread, and tests run beside each other. Set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

# A deadline measures how busy the machine is, not the code.
settings.register_profile("segue", deadline=None)
settings.load_profile("segue")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the slow tests first when several processes share the tests, so that none is left for the end."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of public datasets that SEGUE_TEST_DATA names; without it the test is skipped."""
    folder = os.environ.get("SEGUE_TEST_DATA")
    if not folder:
        pytest.skip("SEGUE_TEST_DATA names no folder of public datasets")
    return Path(folder)
