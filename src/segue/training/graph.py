"""The compute graph of a model's loss: which operations lead from the parameters to the number that is minimised."""

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
from segue.files import atomic_file
from segue.inference.recommender import Recommender
from segue.models.base import TrainableModel

if TYPE_CHECKING:
    from graphviz import Digraph

_SUFFIXES = (".svg", ".pdf", ".png", ".dot")
_NODE = re.compile(r"(?<=^\t)\d+|(?<=-> )\d+")
_EXAMPLES, _LENGTH = 4, 3  # steps of a recurrent model are drawn one by one: enough of them to see, few enough to read


def draw_graph(recommender: Recommender, path: str | Path) -> Path:
    """Draw the autograd graph of the loss of a small batch of the Recommender's own Dataset.

    Blue boxes are parameters with their names and shapes, grey ones operations, orange ones tensors that an operation
    of segue's own keeps for its gradient, and the green one is the loss. Of the examples that the model is trained on,
    those of about three items are taken.

    Parameters
    ----------
    recommender
        Its model must be one that is trained by gradient steps.
    path
        Ends in .svg, .pdf, .png or .dot; all but the last are made by the program `dot` of Graphviz.

    Returns
    -------
    The path.

    Raises
    ------
    ConfigError
        The model has no such graph, the ending is another, or torchviz or Graphviz is not installed.
    TrainingError
        The Dataset has nothing to learn from.
    """
    target = Path(path)
    if target.suffix not in _SUFFIXES:
        raise ConfigError(f"{target}: a graph ends in {', '.join(_SUFFIXES)}.")
    model = recommender.model
    if not isinstance(model, TrainableModel):
        raise ConfigError(
            f"{model.config.name} only counts: it has no loss, and no operations that lead to one. Choose a run of a "
            "model that is trained, such as sasrec."
        )
    graph = _graph(model, recommender)
    content = graph.source.encode() if target.suffix == ".dot" else _rendered(graph, target)
    with atomic_file(target) as temporary:
        temporary.write_bytes(content)
    return target


def _graph(model: TrainableModel, recommender: Recommender) -> Digraph:
    make_dot = _torchviz()
    model = copy.deepcopy(model).train()  # what it makes of the examples must not change the Recommender's own
    examples = model.examples(recommender.dataset)
    chosen = np.argsort(np.abs(examples.lengths - _LENGTH), kind="stable")[:_EXAMPLES]
    batch = examples.batch(chosen, np.random.default_rng(0))
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), _deep(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torchviz compares versions with distutils
        torch.manual_seed(0)
        loss = model(type(batch)(*(tensor.to(model.device) for tensor in batch)))
        graph: Digraph = make_dot(loss, params={**dict(model.named_parameters()), "loss": loss})
    lengths = examples.lengths[chosen]
    sizes = f"{lengths.min()}" if lengths.min() == lengths.max() else f"{lengths.min()} to {lengths.max()}"
    title = f"{model.config.name}: the loss of {len(chosen)} training examples of length {sizes}"
    graph.attr(label=title, labelloc="t", fontname="Helvetica", fontsize="14")
    graph.attr("node", fontname="Courier")  # Graphviz knows its width wherever it runs
    graph.body[:] = _numbered(graph.body)
    return graph


def _numbered(lines: Sequence[str]) -> list[str]:
    """The same graph with nodes called n0, n1, … instead of by their places in memory: the same every time."""
    names: dict[str, str] = {}
    return [_NODE.sub(lambda found: names.setdefault(found[0], f"n{len(names)}"), line) for line in lines]


def _torchviz() -> Any:
    """`torchviz.make_dot`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # it compares versions with distutils
            from torchviz import make_dot
    except ImportError as error:
        raise ConfigError(
            f"drawing a graph needs torchviz, which is not installed ({error}): pip install torchviz, or segue with "
            "its extra, pip install 'segue[graph]'."
        ) from None
    return make_dot


def _rendered(graph: Digraph, path: Path) -> bytes:
    from graphviz import CalledProcessError, ExecutableNotFound

    try:
        return bytes(graph.pipe(format=path.suffix[1:], quiet=True))
    except CalledProcessError as error:
        said = bytes(error.stderr or b"").decode(errors="replace").strip() or f"exit code {error.returncode}"
        raise ConfigError(f"{path}: Graphviz could not make it: {said}. A .dot file needs no Graphviz.") from None
    except ExecutableNotFound:
        raise ConfigError(
            f"{path} is made by Graphviz, whose program `dot` was not found. Install it (apt install graphviz, brew "
            "install graphviz, or https://graphviz.org/download), or write a .dot file, which needs none."
        ) from None


@contextmanager
def _deep() -> Iterator[None]:
    """Within, calls may be nested as deep as a graph is long: torchviz walks it by recursion."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, 100_000))
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)
