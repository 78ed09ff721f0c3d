"""`segue graph`: the compute graph of a model's loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from segue.cli.options import POSITIONAL, OptionParser
from segue.cli.output import write_json, write_pairs
from segue.settings import PathText, Settings

_NOTES = """\
Boxes are parameters (blue), operations (grey), tensors kept for gradients (orange), and the loss of a few training
examples (green). This needs torchviz (pip install torchviz) and, for all formats but .dot, Graphviz."""


@dataclass(frozen=True)
class GraphOptions(Settings):
    """Model and output."""

    run: PathText = field(metadata=POSITIONAL)
    """Folder of a run that `segue train` wrote, or of a saved Recommender."""

    out: PathText
    """File to draw: .svg, .pdf, .png or .dot."""

    json: bool = False
    """Write the summary as JSON."""


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = OptionParser("graph", _NOTES)
    parser.add_options(GraphOptions)
    parser.read(argv)
    options = parser.get(GraphOptions)

    from segue.inference.loading import load
    from segue.training.graph import draw_graph

    recommender = load(options.run)
    draw_graph(recommender, options.out)
    summary = {"model": recommender.model.config.name, "wrote": options.out}
    if options.json:
        write_json(summary)
    else:
        write_pairs(summary)
    return 0
