"""`segue embed`: vectors of the texts of a product table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from segue.cli.options import POSITIONAL, OptionParser
from segue.cli.output import note, progress_bar, write_json
from segue.settings import Count, PathText, Settings, Word

_NOTES = """\
  segue embed products.parquet --text title description --model models/minilm --out vectors.parquet
  segue prepare log.csv --items vectors.parquet --out data/shop
  segue train data/shop --model sasrec --model.features text_vector --out runs/content

The model is a folder that sentence-transformers reads; nothing is downloaded. It needs pip install 'segue[text]'.
The file holds all columns of the table, and one more with the vectors. An item without any text has no vector."""


@dataclass(frozen=True)
class EmbedOptions(Settings):
    """The table, its texts and the model."""

    source: PathText = field(metadata=POSITIONAL)
    """Table of the items: CSV, RecBole's .item, Parquet or JSON."""

    text: tuple[str, ...]
    """Columns of the table to read."""

    model: PathText
    """Folder of a model of sentence-transformers."""

    out: PathText
    """Parquet file to write; one that this command wrote there is replaced."""

    column: Word = "text_vector"
    """Name of the new column."""

    item_key: Word | None = None
    """Column of the table with the ids; found by its name when not given."""

    batch_size: Count = 64
    """Texts that the model reads at once."""

    cpu: bool = False
    """Stay on the CPU, even if there is an accelerator."""

    overwrite: bool | None = None
    """Replace a file with vectors in --out; when not given, true. Anything else that is there is never replaced."""

    quiet: bool = False
    """Show no progress."""

    json: bool = False
    """Write the summary as JSON."""


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = OptionParser("embed", _NOTES)
    parser.add_options(EmbedOptions)
    parser.read(argv)
    options = parser.get(EmbedOptions)

    from segue.data.preparing.embedding import embed

    with parser.errors_as_typed(), progress_bar(options.quiet) as bar:
        frame = embed(
            options.source,
            text=options.text,
            model=options.model,
            column=options.column,
            item_key=options.item_key,
            batch_size=options.batch_size,
            cpu=options.cpu,
            out=options.out,
            overwrite=options.overwrite,
            progress=lambda done, total: bar("texts", done / total),
        )
    vectors = frame[options.column]
    missing = vectors.null_count()
    if options.json:
        width = vectors.dtype.shape[0]  # type: ignore[attr-defined]
        write_json({"out": options.out, "items": len(frame), "without_text": missing, "width": width})
        return 0
    without = f"; {missing:,} have no text, so no vector" if missing else ""
    note(f"{options.out}: {len(frame) - missing:,} of {len(frame):,} items with a vector{without}")
    return 0
