"""Checkpoints: one safetensors file each, with a JSON note inside, replaced in one step. They cannot run code."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from segue.errors import StorageError
from segue.files import atomic_file, parse_json
from segue.locks import put

FORMAT_VERSION = 1
_VERSION_IN_PARTS = 2
"""Version of checkpoints in parts, which older versions of segue do not open."""
LAST, BEST = "last.safetensors", "best.safetensors"
"""Files in a run with its state and with the weights of its best epoch so far."""
NEXT_BEST = "best.next.safetensors"
"""File in a run with the weights of a new best epoch, until the state that names the epoch is saved."""
EPOCHS = "epochs"
"""Folder in a run with the kept weights and states of single epochs."""
PARTS = "parts"
"""Folder beside a checkpoint with the parts of divided tables, and their entry in its note."""
Rows = Callable[[str], range | None]
"""Function that names the rows of a tensor to read, by the name of the tensor; None stands for all."""
_PART = re.compile(r"\d+of\d+/[\w-]+\.safetensors")


def kept_state(epoch: int) -> str:
    """Path, relative to the folder of a run, of the whole state after a kept epoch."""
    return f"{EPOCHS}/state-{epoch:04}.safetensors"


def kept_epoch(epoch: int) -> str:
    """Path, relative to the folder of a run, of the kept weights of an epoch."""
    return f"{EPOCHS}/{epoch:04}.safetensors"


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], note: Mapping[str, Any]) -> str:
    """Write tensors and a note of plain data to `path`, and return its checksum.

    An existing file stays until the new one is complete. If the note has `PARTS`, the checkpoint has more tensors in
    other files (`save_part`).
    """
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = {"kind": "segue-checkpoint", "format_version": str(FORMAT_VERSION), "note": json.dumps(note)}
    if PARTS in note:
        header["format_version"] = str(_VERSION_IN_PARTS)
    digest = _digest(stored, header)
    with atomic_file(path) as temporary:
        save_file(stored, temporary, metadata={**header, "sha256": digest})
    return digest


def save_part(path: Path, name: str, tensors: Mapping[str, Tensor], rows: Mapping[str, range]) -> dict[str, str]:
    """Write one part of a checkpoint, and return its entry for the note of the checkpoint.

    Parameters
    ----------
    path
        The checkpoint, which is written after all of its parts.
    name
        Name of the part within `PARTS`: a folder of this process alone, since processes collect what killed ones left,
        and a name that is new for every checkpoint, because former parts stay until it is there.
    tensors
        Tensors of this part.
    rows
        Rows of the whole tensor that each tensor has; those of other tensors are the same in all parts.
    """
    note = {"rows": {key: [own.start, own.stop] for key, own in rows.items()}}
    digest = save_checkpoint(path.parent / PARTS / name, tensors, note)
    return {"file": name, "sha256": digest}


def load_checkpoint(path: Path, rows: Rows | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors and the note that `save_checkpoint` wrote, with all of its parts.

    Parameters
    ----------
    path
        The checkpoint.
    rows
        Function that names the rows to read of a tensor, or None for all; None reads all rows of all tensors. Parts
        that have none of these rows are not read.

    Raises
    ------
    StorageError
        The file or a part is missing, not a safetensors file (a pickle, for example), of a future version, or altered.
    """
    tensors, note, _ = _read(path)
    parts = note.get(PARTS)
    if parts is None:
        own = {name: None if rows is None else rows(name) for name in tensors}
        return {
            name: tensor if part is None else tensor[part.start : part.stop].clone()
            for (name, tensor), part in zip(tensors.items(), own.values(), strict=True)
        }, note
    return tensors | _read_parts(path, parts, rows), note


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """Tensors, note and checksum of one file, compared with each other."""
    with _opened(path) as stored:
        header = dict(stored.metadata() or {})
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    note, digest = _note(path, header), header.pop("sha256", "")
    if digest != _digest(tensors, header):
        raise StorageError(f"{path} does not match its checksum: it was altered after it was written.")
    return tensors, note, digest


def _read_parts(path: Path, parts: Any, rows: Rows | None) -> dict[str, Tensor]:
    """Tensors of the parts of a checkpoint, joined; `rows` as in `load_checkpoint`."""
    entries = parts if isinstance(parts, list) else []
    if not entries or not all(isinstance(one, dict) and _PART.fullmatch(str(one.get("file"))) for one in entries):
        raise StorageError(f"{path} names impossible parts: it was damaged or edited.")
    joined: dict[str, Tensor] = {}
    pieces: dict[str, list[Tensor]] = {}
    for number, entry in enumerate(entries):
        file = path.parent / PARTS / entry["file"]
        held = _rows_of_part(file)
        wanted = {key: None if rows is None else rows(key) for key in held}
        overlaps = {key: _overlap(held[key], wanted[key]) for key in held}
        if number and held and not any(overlaps.values()):
            continue
        tensors, _, digest = _read(file)
        if digest != entry.get("sha256"):
            raise StorageError(f"{file} is not the part that {path} names: {_ANOTHER}")
        for key, tensor in tensors.items():
            if key not in held:
                joined[key] = tensor
            elif len(tensor) != len(held[key]):
                raise StorageError(f"{file} has other rows of {key} than it names: it was damaged or edited.")
            else:
                own, start = overlaps[key], held[key].start
                pieces.setdefault(key, []).append(tensor[own.start - start : own.stop - start])
    return joined | {key: torch.cat(several) for key, several in pieces.items()}


def _rows_of_part(file: Path) -> dict[str, range]:
    """Rows of each tensor that a part of a checkpoint has."""
    rows = read_note(file).get("rows")
    if not isinstance(rows, dict) or not all(
        isinstance(one, list) and len(one) == 2 and all(type(number) is int for number in one) and 0 <= one[0] <= one[1]
        for one in rows.values()
    ):
        raise StorageError(f"{file} does not tell its rows: it was damaged or edited.")
    return {key: range(*one) for key, one in rows.items()}


def _overlap(held: range, wanted: range | None) -> range:
    """Rows of a part that are wanted; an empty range at its start if there are none."""
    if wanted is None:
        return held
    start, stop = max(held.start, wanted.start), min(held.stop, wanted.stop)
    return range(start, stop) if start < stop else range(held.start, held.start)


def drop_parts(run: Path) -> None:
    """Delete the parts that no checkpoint of a run names, in the run and in its kept epochs."""
    for folder in (run, run / EPOCHS):
        named: set[str] = set()
        for file in folder.glob("*.safetensors"):
            named |= {str(one.get("file")) for one in read_note(file).get(PARTS) or () if isinstance(one, dict)}
        for file in (folder / PARTS).glob("*/*.safetensors"):
            if file.relative_to(folder / PARTS).as_posix() not in named:
                file.unlink(missing_ok=True)


def read_note(path: Path) -> dict[str, Any]:
    """Read the note of a checkpoint without its tensors, so without comparing its checksum.

    Raises
    ------
    StorageError
        The file is missing, not a checkpoint, or of a future version.
    """
    return _note(path, _header(path))


def confirm_best(run: Path) -> None:
    """Put new best weights in the place of the former ones if the saved state names their epoch.

    New best weights are saved as `NEXT_BEST`, then the state, and then this is called. A process that is killed in
    between leaves the former best weights with the former state, or the new ones with the new state.
    """
    file = run / NEXT_BEST
    if not file.is_file():
        return
    if (run / LAST).is_file() and best_epoch_of(read_note(file)) == best_epoch_of(read_note(run / LAST)):
        put(file, run / BEST)
    else:
        file.unlink()


def load_best(run: Path, rows: Rows | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the weights of the best epoch so far, and their note; `rows` as in `load_checkpoint`.

    Raises
    ------
    StorageError
        There are none, or they are of another run or of another moment than the state beside them.
    """
    confirm_best(run)
    tensors, note = load_checkpoint(run / BEST, rows)
    if (run / LAST).is_file():
        check_same_run(run / BEST, note, run / LAST, read_note(run / LAST))
        mine, theirs = (history_of(one, run / name) for one, name in ((note, BEST), (read_note(run / LAST), LAST)))
        shorter = min(len(mine), len(theirs))
        # Of runs of an earlier segue the best weights may be one save ahead of the state.
        if mine[:shorter] != theirs[:shorter]:
            raise StorageError(f"{run / BEST} is not of the same moment as {run / LAST}: {_ANOTHER}")
        if len(mine) <= len(theirs) and best_epoch_of(note) != best_epoch_of(read_note(run / LAST)):
            raise StorageError(
                f"{run / BEST} holds the weights of epoch {best_epoch_of(note)}, and the best epoch of {run / LAST} is "
                f"{best_epoch_of(read_note(run / LAST))}: {_ANOTHER}"
            )
    return tensors, note


def read_best(run: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the weights of the best epoch so far, and the note of the last state, without changing a file.

    Raises
    ------
    StorageError
        There are none, or they do not belong together; so it may be while a training replaces them.
    """
    state, file = read_note(run / LAST), run / BEST
    if (run / NEXT_BEST).is_file() and best_epoch_of(read_note(run / NEXT_BEST)) == best_epoch_of(state):
        file = run / NEXT_BEST
    tensors, note = load_checkpoint(file)
    check_same_run(file, note, run / LAST, state)
    mine, theirs = history_of(note, file), history_of(state, run / LAST)
    shorter = min(len(mine), len(theirs))
    if mine[:shorter] != theirs[:shorter] or best_epoch_of(note) != best_epoch_of(state):
        raise StorageError(f"{file} is not of the same moment as {run / LAST}: {_ANOTHER}")
    return tensors, state


def load_epoch(run: Path, epoch: int, rows: Rows | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the kept weights of an epoch, and their note; `rows` as in `load_checkpoint`.

    Raises
    ------
    StorageError
        The epoch was not kept, or the file is of another epoch or of another run.
    """
    file = run / kept_epoch(epoch)
    if not file.is_file():
        kept = ", ".join(str(int(file.stem)) for file in sorted((run / EPOCHS).glob("[0-9]*.safetensors"))) or "none"
        raise StorageError(
            f"{run} did not keep the weights of epoch {epoch}; kept: {kept}. Train with --training.keep-every N to "
            "keep the weights of every N-th epoch."
        )
    tensors, note = load_checkpoint(file, rows)
    state = note.get("state")
    found = state.get("epoch") if isinstance(state, dict) else None
    if found != epoch:
        raise StorageError(f"{file} holds the weights of epoch {found}, not of epoch {epoch}: {_ANOTHER}")
    if (run / LAST).is_file():
        check_same_run(file, note, run / LAST, read_note(run / LAST))
    return tensors, note


def check_same_run(file: Path, note: Mapping[str, Any], other: Path, other_note: Mapping[str, Any]) -> None:
    """Raise a StorageError unless two checkpoints are of one model, one Dataset and one seed."""
    for name in ("model", "dataset", "seed"):
        mine, theirs = (_identity(one).get(name) for one in (note, other_note))
        if isinstance(mine, dict) and isinstance(theirs, dict):  # one may be older than a setting of the other
            mine, theirs = ({key: one[key] for key in mine.keys() & theirs.keys()} for one in (mine, theirs))
        if mine != theirs:
            raise StorageError(f"{file} is of another run than {other} (another {name}): {_ANOTHER}")


def history_of(note: Mapping[str, Any], place: Path) -> list[dict[str, float]]:
    """The rows of the completed epochs in a note, or a StorageError if it has none."""
    state = note.get("state")
    history = state.get("history") if isinstance(state, dict) else None
    if not isinstance(history, list) or not all(isinstance(row, dict) for row in history):
        raise StorageError(f"{place} has no history of its epochs: it was damaged or edited.")
    return history


_ANOTHER = "it was put there from elsewhere. Restore the file of this run, or train into a new folder."


def _identity(note: Mapping[str, Any]) -> dict[str, Any]:
    """Model, Dataset and seed of a checkpoint."""
    identity = note.get("identity")
    if not isinstance(identity, dict):
        return {}
    training = identity.get("training")
    seed = training.get("seed") if isinstance(training, dict) else None
    return {"model": identity.get("model"), "dataset": identity.get("dataset"), "seed": seed}


def best_epoch_of(note: Mapping[str, Any]) -> Any:
    """The best epoch so far in a note; 0 or None without one."""
    state = note.get("state")
    return state.get("best_epoch") if isinstance(state, dict) else None


def _header(path: Path) -> dict[str, str]:
    """The texts that a safetensors file holds beside its tensors."""
    with _opened(path) as stored:
        return dict(stored.metadata() or {})


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a safetensors file; one that is missing or no such file is a StorageError."""
    if not path.is_file():
        raise StorageError(f"{path} is missing.")
    try:
        with safe_open(path, framework="pt") as stored:
            yield stored
    except (SafetensorError, OSError) as error:
        raise StorageError(
            f"{path} is not a readable safetensors file ({error}). segue opens no other format: pickles can run code."
        ) from None


def _note(path: Path, header: Mapping[str, str]) -> dict[str, Any]:
    """The note in a header, if the file is a checkpoint of a version that this segue reads."""
    if header.get("kind") != "segue-checkpoint":
        raise StorageError(f"{path} is a safetensors file, but not a checkpoint written by segue.")
    version = header.get("format_version", "")
    if not re.fullmatch("[0-9]{1,9}", version) or int(version) > _VERSION_IN_PARTS:
        raise StorageError(
            f"{path} has format version {version[:20] or 'none'}; this segue reads up to {_VERSION_IN_PARTS}. "
            "Upgrade segue to open it."
        )
    note = parse_json(header.get("note", ""), f"the note in {path}")
    if not isinstance(note, dict):
        raise StorageError(f"the note in {path} is no object: it was damaged or edited.")
    return note


def _digest(tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> str:
    """SHA-256 of the header and the tensors."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()
