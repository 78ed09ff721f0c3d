"""`segue export`: a model for other languages, or an index of its items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from segue.cli.options import POSITIONAL, OptionParser
from segue.cli.output import write_json, write_pairs
from segue.errors import ConfigError
from segue.settings import Count, PathText, Settings, Share

if TYPE_CHECKING:
    from segue.inference.index import ItemIndex
    from segue.inference.recommender import Recommender

_NOTES = """\
  segue export runs/first --to onnx --out exported
  segue export runs/first --to onnx --out exported --with-data && segue serve exported --engine onnx
  segue export runs/first --to index --out runs/first-index
  segue recommend runs/first --users 42 --index runs/first-index

onnx writes the encoder, the item vectors, the ids, and a README with programs that use them. It needs
pip install 'segue[onnx]'. index writes a graph for approximate search, and needs pip install 'segue[ann]'.
Lists of recommendations are written by segue recommend --out."""


@dataclass(frozen=True)
class ExportOptions(Settings):
    """Model and output."""

    run: PathText = field(metadata=POSITIONAL)
    """Folder of a run that `segue train` wrote, or of a saved Recommender."""

    out: PathText
    """Folder to write. An earlier export of the same kind is replaced; anything else is refused."""

    to: Literal["onnx", "index"] = "onnx"
    """"onnx": the model for other languages; "index": an index for `segue recommend --index`."""

    index: bool = False
    """Write an index for approximate search with the model, too."""

    with_data: bool = False
    """Copy the Dataset into the folder of the model, for `segue serve --engine onnx`."""

    recall: Share = 0.98
    """Share of the ten best items that a search in the index should find."""

    sample: Count = 2000
    """Number of users whose queries measure the recall of the index."""

    overwrite: bool | None = None
    """Replace an earlier export; when not given, true."""

    json: bool = False
    """Write the summary as JSON."""


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = OptionParser("export", _NOTES)
    parser.add_options(ExportOptions)
    parser.read(argv)
    options = parser.get(ExportOptions)
    if options.to == "index" and options.index:
        raise ConfigError("--index belongs to --to onnx: --to index writes nothing else.")

    if options.to == "index" and options.with_data:
        raise ConfigError("--with-data belongs to --to onnx: an index needs no Dataset.")

    from segue.inference.loading import load

    recommender = load(options.run)
    summary: dict[str, object] = {"model": recommender.model.config.name, "wrote": options.out}
    index = None
    if options.index or options.to == "index":
        index = _index(recommender, options, summary)
    if options.to == "onnx":
        recommender.to_onnx(options.out, index=index, with_data=options.with_data, overwrite=options.overwrite)
    elif index is not None:
        index.save(options.out, overwrite=options.overwrite)
    summary["MB"] = sum(file.stat().st_size for file in Path(options.out).rglob("*") if file.is_file()) / 1e6
    if options.json:
        write_json(summary)
    else:
        write_pairs(summary)
    return 0


def _index(recommender: Recommender, options: ExportOptions, summary: dict[str, object]) -> ItemIndex:
    """An index of the model's items; its figures join the summary."""
    index = recommender.build_index(recall=options.recall, sample=options.sample)
    summary |= {"indexed items": len(index.graph), "recall@10": index.recall, "effort": index.effort}
    return index
