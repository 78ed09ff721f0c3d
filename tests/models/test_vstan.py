"""Bad input of VSTAN; its scores are compared with the program's in `test_vsknn.py`."""

from __future__ import annotations

import pytest

import segue
from segue.errors import ConfigError
from segue.models.vstan import VSTAN
from tests.models.baskets import world


def test_ages_need_times() -> None:
    with pytest.raises(ConfigError, match="has no times"):
        segue.fit(VSTAN(), world().dataset(times=False))
    segue.fit(VSTAN(age_scale=None), world().dataset(times=False), quiet=True)
