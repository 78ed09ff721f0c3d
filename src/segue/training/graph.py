"""Compute graph of a model's loss: the operations between its parameters and the number that is minimised."""

from __future__ import annotations

import copy
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from segue.errors import ConfigError
from segue.files import write_picture
from segue.inference.recommender import Recommender
from segue.models.base import TrainableModel
from segue.nn.moving import moved

if TYPE_CHECKING:
    from graphviz import Digraph

_SUFFIXES = (".svg", ".pdf", ".png", ".dot")
_NODE = re.compile(r"(?<=^\t)\d+|(?<=-> )\d+")
_EXAMPLES, _LENGTH = 4, 3  # every step of a recurrent model is drawn, so more or longer examples are hard to read


def draw_graph(recommender: Recommender, path: str | Path) -> Path:
    """Draw the autograd graph of the loss of a small batch from the Recommender's Dataset.

    Blue boxes are parameters with their names and shapes. Grey boxes are operations. Orange boxes are tensors that an
    operation of segue keeps for its gradient. The green box is the loss. The batch has training examples of about three
    items each.

    Parameters
    ----------
    recommender
        A Recommender with a model that is trained by gradient steps.
    path
        File to write: .svg, .pdf, .png or .dot. The program `dot` of Graphviz makes all of them except .dot.

    Returns
    -------
    Path of the written file.

    Raises
    ------
    ConfigError
        The model has no such graph, the file has another ending, or torchviz or Graphviz is not installed.
    TrainingError
        The Dataset has nothing to learn from.
    """
    target = Path(path)
    if target.suffix not in _SUFFIXES:
        raise ConfigError(f"{target}: the file of a graph ends in {', '.join(_SUFFIXES)}.")
    model = recommender.model
    if not isinstance(model, TrainableModel):
        raise ConfigError(
            f"{model.config.name} only counts: it has no loss, so it has no graph. Choose a run of a model that is "
            "trained, such as sasrec."
        )
    graph = _graph(model, recommender)
    content = graph.source.encode() if target.suffix == ".dot" else _rendered(graph, target)
    write_picture(target, content)
    return target


def _graph(model: TrainableModel, recommender: Recommender) -> Digraph:
    make_dot = _torchviz()
    model = copy.deepcopy(model).train()  # a copy, so that the Recommender stays as it is
    examples = model.examples(recommender.dataset)
    chosen = np.argsort(np.abs(examples.lengths - _LENGTH), kind="stable")[:_EXAMPLES]
    batch = examples.batch(chosen, np.random.default_rng(0))
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), _deep_recursion(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torchviz compares versions with distutils
        torch.manual_seed(0)
        loss = model(moved(batch, model.device))
        graph: Digraph = make_dot(loss, params={**dict(model.named_parameters()), "loss": loss})
    lengths = examples.lengths[chosen]
    sizes = f"{lengths.min()}" if lengths.min() == lengths.max() else f"{lengths.min()} to {lengths.max()}"
    title = f"{model.config.name}: the loss of {len(chosen)} training examples of length {sizes}"
    graph.attr(label=title, labelloc="t", fontname="Helvetica", fontsize="14")
    graph.attr("node", fontname="Courier")  # Graphviz knows the width of this font everywhere
    graph.body[:] = _numbered(graph.body)
    return graph


def _numbered(lines: Sequence[str]) -> list[str]:
    """Rename the nodes from memory addresses to n0, n1, …, so that the graph is the same every time."""
    names: dict[str, str] = {}
    return [_NODE.sub(lambda match: names.setdefault(match[0], f"n{len(names)}"), line) for line in lines]


def _torchviz() -> Any:
    """Import `torchviz.make_dot`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # it compares versions with distutils
            from torchviz import make_dot
    except ImportError as error:
        raise ConfigError(
            f"drawing a graph needs torchviz, which is not installed ({error}): pip install torchviz, or "
            "pip install 'segue[graph]'."
        ) from None
    return make_dot


def _rendered(graph: Digraph, path: Path) -> bytes:
    from graphviz import CalledProcessError, ExecutableNotFound

    try:
        return bytes(graph.pipe(format=path.suffix[1:], quiet=True))
    except CalledProcessError as error:
        message = bytes(error.stderr or b"").decode(errors="replace").strip() or f"exit code {error.returncode}"
        raise ConfigError(f"{path}: Graphviz could not draw it: {message}. A .dot file needs no Graphviz.") from None
    except ExecutableNotFound:
        raise ConfigError(
            f"{path} needs Graphviz, and its program `dot` was not found. Install it (apt install graphviz, brew "
            "install graphviz, or https://graphviz.org/download), or write a .dot file, which does not need it."
        ) from None


@contextmanager
def _deep_recursion() -> Iterator[None]:
    """Raise the recursion limit for the duration of the context, because torchviz walks the graph by recursion."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, 100_000))
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)
