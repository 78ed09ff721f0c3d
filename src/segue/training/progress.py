"""Progress of training on standard error: loss, rate and time left."""

from __future__ import annotations

import sys

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from segue.cores import Waiting
from segue.progress import Bar as CellBar
from segue.progress import in_notebook
from segue.training.curves import NOT_METRICS

_BUSY = 0.2
"""Share of an epoch that each thread waits for a core, from which on the machine counts as busy."""


class Progress:
    """A progress bar per epoch, and a line at its end. `Progress(quiet=True)` shows nothing."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.console = Console(stderr=True, quiet=quiet)
        self._bar: Bar | None = None
        self._cell: CellBar | None = None
        self._task: TaskID | None = None
        self._waiting = Waiting()
        self._told = False

    def start_epoch(self, epoch: int, epochs: int, steps: int, done: int) -> None:
        """Begin an epoch of `steps` steps; `done` of them are already completed."""
        self._waiting = Waiting()
        if not self.quiet and in_notebook():
            self._cell = CellBar(f"epoch {epoch} of {epochs}: step", steps, delay=0.0)
            self._cell.set(done)
            return
        if self.quiet or not sys.stderr.isatty():
            return
        self._bar = Bar(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4f} · {task.fields[rate]:.1f} steps/s"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        self._bar.start()
        self._task = self._bar.add_task(
            "", total=steps, completed=done, epoch=f"{epoch}/{epochs}", loss=float("nan"), rate=0.0
        )

    def step(self, loss: float) -> None:
        """Count a step; `loss` is the mean loss of the epoch so far."""
        if self._cell is not None:
            self._cell.set(self._cell.done + 1, f"loss {loss:.4f}")
        if self._bar is not None and self._task is not None:
            rate = self._bar.tasks[0].speed or 0.0
            self._bar.update(self._task, advance=1, loss=loss, rate=rate)

    def end_epoch(self, row: dict[str, float], best: bool) -> None:
        """End the epoch with a line of its loss and metrics, also those of the test part; without shorter lists."""
        self.close()
        texts = [f"epoch {row['epoch']:.0f}", f"loss {row['loss']:.4f}"]
        metrics = {name: value for name, value in row.items() if name not in NOT_METRICS}
        longest = {name.partition("@")[0]: name for name in metrics}  # the last one has the longest list
        texts += [f"{name} {metrics[name]:.4f}" for name in longest.values()]
        texts.append(f"{row['seconds']:.1f} s")
        self.console.print("  ".join(texts) + ("  [green]best[/]" if best else ""), highlight=False, soft_wrap=True)
        self._tell_if_busy()

    def _tell_if_busy(self) -> None:
        """Say once that other programs slow the training down, and what helps."""
        threads = torch.get_num_threads()
        if self.quiet or self._told or threads == 1:
            return
        share = self._waiting.share(threads)
        if share > _BUSY:
            self._told = True
            self.console.print(
                f"Other programs use the cores too: each of the {threads} threads waited for one during {share:.0%} of "
                "this epoch, and a step ends with its slowest thread. OMP_NUM_THREADS=1 is often several times faster "
                "then.",
                highlight=False,
                soft_wrap=True,
            )

    def close(self) -> None:
        """Remove the bar from the screen."""
        if self._cell is not None:
            self._cell.close()
            self._cell = None
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
