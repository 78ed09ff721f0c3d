"""The side of a worker: it sets up its state once, and answers each part with a result or an exception, as bytes."""

from __future__ import annotations

import pickle
import traceback
from typing import Any

from segue.errors import EngineError, SegueError
from segue.memory import return_buffers


class Worker:
    """State of one worker.

    Parameters
    ----------
    setup
        Pickled function that makes the state, called before the first part; None for workers without a state.
    """

    def __init__(self, setup: bytes | None) -> None:
        self._setup = setup
        self._state: tuple[Any, ...] | None = () if setup is None else None

    def answer(self, task: bytes) -> bytes:
        """Run a function on one part.

        Parameters
        ----------
        task
            The pickled pair (function, part). The function is called with the part, or with the state and the part.

        Returns
        -------
        answer
            A pickled pair: True and the result, or False and the exception.
        """
        try:
            function, part = pickle.loads(task)
            if self._state is None:
                assert self._setup is not None
                self._state = (pickle.loads(self._setup)(),)
            return pickle.dumps((True, function(*self._state, part)), pickle.HIGHEST_PROTOCOL)
        except Exception as error:
            return pickle.dumps((False, _portable(error)), pickle.HIGHEST_PROTOCOL)
        finally:
            return_buffers()


def result_of(answer: bytes) -> Any:
    """The result that an answer holds; an exception is raised."""
    done, content = pickle.loads(answer)
    if not done:
        raise content
    return content


def _portable(error: Exception) -> Exception:
    """An exception that survives pickling: the same one if it does, else an EngineError with its text."""
    trace = traceback.format_exc()
    try:
        copy = pickle.loads(pickle.dumps(error))
        if type(copy) is type(error) and str(copy) == str(error):
            if not isinstance(error, SegueError):  # whose message says all
                error.add_note(f"In a worker:\n{trace}")
            return error
    except Exception:
        pass
    return EngineError(f"a worker stopped with {type(error).__name__}: {error}\n{trace}")
