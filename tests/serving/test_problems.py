from __future__ import annotations

import logging

import pytest

from segue.serving.problems import Seldom


def test_an_outage_is_logged_seldom_and_counted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("segue.serving.problems.time.monotonic", lambda: now[0])
    seldom = Seldom(10)
    with caplog.at_level(logging.ERROR, logger="segue.serving"):
        for second in (100, 101, 109.9, 110, 111):
            now[0] = second
            seldom.error("the store is away")
    assert caplog.messages == ["the store is away", "the store is away (2 more errors since the last line)"]
