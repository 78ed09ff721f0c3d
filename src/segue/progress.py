"""Progress bars for long steps, on terminals and in notebooks; nothing is shown elsewhere."""

from __future__ import annotations

import html
import sys
import time
from types import TracebackType
from typing import Any

_DELAY = 2.0
"""Seconds before a bar appears: short steps show none."""
_PAUSE = 0.25
"""Seconds between two updates of a notebook."""


def in_notebook() -> bool:
    """True in a cell of a notebook, such as Jupyter's, whose output is no terminal."""
    if "IPython" not in sys.modules:
        return False
    shell = getattr(sys.modules["IPython"], "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


def can_show() -> bool:
    """True if progress has a place: a notebook, or a terminal on standard error."""
    return in_notebook() or (sys.stderr is not None and sys.stderr.isatty())


class Bar:
    """Bar of one long step, which appears after two seconds and goes away at the end.

    Parameters
    ----------
    label
        Noun for the units: "users".
    total
        Number of units.
    delay
        Seconds before it appears.

    Examples
    --------
    >>> with Bar("users", total=3) as bar:
    ...     bar.advance(2)
    ...     bar.set(3)
    """

    def __init__(self, label: str, total: int, delay: float = _DELAY) -> None:
        self.label, self.total, self.done = label, total, 0
        self.note = ""
        self._delay = delay
        self._shown: _Notebook | _Terminal | None = None
        self._possible: bool | None = None
        self._started = self._updated = time.perf_counter()

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the bar."""
        if self._shown is not None:
            self._shown.close()
            self._shown = None

    def advance(self, units: int) -> None:
        """Count more units."""
        self.set(self.done + units)

    def set(self, done: int, note: str = "") -> None:
        """Set the number of units so far, and a text to show behind them."""
        self.done, self.note = done, note
        now = time.perf_counter()
        if now - self._started < self._delay:
            return
        if self._possible is None:
            self._possible = can_show()
        if not self._possible:
            return
        if self._shown is None:
            self._shown = _Notebook(self) if in_notebook() else _Terminal(self)
        elif now - self._updated < _PAUSE and done < self.total:
            return
        self._updated = now
        self._shown.update()

    def text(self) -> str:
        """One line: units, share and the time left."""
        share = self.done / self.total if self.total else 1.0
        elapsed = time.perf_counter() - self._started
        left = f" · {_clock(elapsed / share - elapsed)} left" if 0 < share < 1 else ""
        note = f" · {self.note}" if self.note else ""
        return f"{self.label} {self.done:,} of {self.total:,} ({share:.0%}){note}{left}"


class _Terminal:
    """A bar on standard error."""

    def __init__(self, bar: Bar) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._bar = bar
        columns = (BarColumn(), TextColumn("{task.description}", markup=False))
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._progress.start()
        self._task = self._progress.add_task(bar.text(), total=max(bar.total, 1))

    def update(self) -> None:
        self._progress.update(self._task, completed=self._bar.done, description=self._bar.text())

    def close(self) -> None:
        self._progress.stop()


class _Notebook:
    """A bar in the output of a cell. It needs no widgets."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._handle: Any = sys.modules["IPython"].display.display(self._content(), raw=True, display_id=True)

    def update(self) -> None:
        self._handle.update(self._content(), raw=True)

    def close(self) -> None:
        self._handle.update({"text/plain": "", "text/html": ""}, raw=True)

    def _content(self) -> dict[str, str]:
        text = self._bar.text()
        bar = f'<progress value="{self._bar.done}" max="{max(self._bar.total, 1)}"></progress>'
        return {"text/plain": text, "text/html": f"{bar} {html.escape(text)}"}


def _clock(seconds: float) -> str:
    """A duration as minutes and seconds, or hours, minutes and seconds."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
