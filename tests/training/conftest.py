from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _empty_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave `curves.png` empty, except in tests marked `pictures`: drawing takes longer than these trainings."""
    if request.node.get_closest_marker("pictures") is None:
        monkeypatch.setattr("segue.training.fit.draw_curves", lambda path, *_: Path(path).touch())
