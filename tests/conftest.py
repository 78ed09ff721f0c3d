from __future__ import annotations

import os
from pathlib import Path

# Small tensors are faster on one thread, and tests may run beside each other. Set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of public datasets that SEGUE_TEST_DATA names; without it the test is skipped."""
    folder = os.environ.get("SEGUE_TEST_DATA")
    if not folder:
        pytest.skip("SEGUE_TEST_DATA names no folder of public datasets")
    return Path(folder)
