"""Several workers on one machine: the same command in several processes, which share a folder or a storage."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from segue.cli.main import command_line
from segue.cores import threads_of_each


def run_workers(command: str, argv: Sequence[str], processes: int, silent: str) -> int:
    """Run a command in several processes, each with its part of the cores, and return the worst exit code.

    Parameters
    ----------
    command, argv
        Name of the command, and its words.
    processes
        Number of processes. The first one prints as usual.
    silent
        Option with which the others say less; what they write to standard output is thrown away.
    """
    words = command_line(command, [*argv, "--processes", "1"])
    threads = os.environ.get("OMP_NUM_THREADS") or str(threads_of_each(processes))
    environment = {**os.environ, "OMP_NUM_THREADS": threads}
    others = [
        subprocess.Popen([sys.executable, "-m", *words, silent], env=environment, stdout=subprocess.DEVNULL)
        for _ in range(processes - 1)
    ]
    try:
        codes = [subprocess.run([sys.executable, "-m", *words], env=environment, check=False).returncode]
        codes += [worker.wait() for worker in others]
    finally:
        for worker in others:
            worker.terminate()
            worker.wait()
    return max(codes)
