"""The program `segue`, also as `python -m segue`: it loads the command line, which then runs a command."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command of the process and return its exit code.

    Ctrl-C while the command line is loaded ends the program in one line. From then on `segue.cli.main` answers it.
    """
    try:
        import os
        import signal

        def leave(number: int, frame: object) -> None:
            os.write(2, b"segue: interrupted.\n")
            os._exit(130)

        own = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if own:
            signal.signal(signal.SIGINT, leave)
    except KeyboardInterrupt:
        sys.stderr.write("segue: interrupted.\n")
        return 130
    from segue.cli.main import main as run

    if own:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return run()


if __name__ == "__main__":
    sys.exit(main())
