"""Served models: variants with shares of the users, and new runs that take the place of old ones.

A new model is opened and checked beside the old one, its histories are filled from the store, and only then it takes
the place. Requests in progress keep the model that they began with.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from segue.errors import ConfigError, SegueError, nearest
from segue.serving.items import Document, documents_of
from segue.serving.journal import Journal
from segue.serving.live import LiveHistories
from segue.serving.metrics import Metrics
from segue.serving.served import Served

log = logging.getLogger("segue.serving")

_MANIFESTS = ("recommender.json", "recommender/recommender.json", "run.json", "onnx.json")
_LAST = 2**62
Mark = tuple[str, tuple[tuple[int, int, int], ...]]
"""Target of a path, and the inode, time and size of the manifests there."""


Opener = Callable[[Path, str, float | None, Mapping[str, Document], int], Served]
"""Function of a path, its name for people, the time of the training, the items that were put and the last number."""


@dataclass(frozen=True)
class Variant:
    """A served run.

    Attributes
    ----------
    name
        Name of the variant, in every answer and recommendation id.
    path
        Folder of the run, or a link to one.
    share
        Share of the users, from 0 to 1.
    served
        The model.
    mark
        State of the folder when the model was opened.
    """

    name: str
    path: Path
    share: float
    served: Served
    mark: Mark


def parse_runs(words: Sequence[str]) -> list[tuple[str, Path, float]]:
    """Names, folders and shares (sum 1) of runs as typed: RUN, or NAME=RUN:SHARE for several.

    Raises
    ------
    ConfigError
        A word has neither form, a name occurs twice, or all shares are 0.
    """
    runs: list[tuple[str, Path, float]] = []
    for word in words:
        name, equals, rest = word.partition("=")
        if not equals or not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
            name, rest = "main" if len(words) == 1 else f"run-{len(runs) + 1}", word
        path, colon, share = rest.rpartition(":")
        if not colon or not share.replace(".", "", 1).isdigit():
            path, share = rest, "1"
        if not path:
            raise ConfigError(f'"{word}" names no run: expected RUN, or NAME=RUN:SHARE.')
        runs.append((name, Path(path), float(share)))
    names = [name for name, _, _ in runs]
    if len(set(names)) < len(names):
        raise ConfigError(f"two runs have the same name: found {', '.join(names)}.")
    whole = sum(share for _, _, share in runs)
    if not whole > 0:
        raise ConfigError("the shares of all runs are 0: give at least one of them a share.")
    return [(name, path, share / whole) for name, path, share in runs]


class Models:
    """All served variants.

    Parameters
    ----------
    runs
        Results of `parse_runs`.
    journal
        Fills the histories of the models, and keeps them up to date.
    metrics
        Metrics of the service.
    watch
        Seconds between two looks for new runs.
    opener
        Opens a run: `open_run`, or `open_export` without torch.
    kept
        Users whose lists each model keeps.
    """

    def __init__(
        self,
        runs: Sequence[tuple[str, Path, float]],
        journal: Journal,
        metrics: Metrics,
        watch: float,
        opener: Opener,
        kept: int = 0,
    ) -> None:
        self._journal, self._metrics, self._watch, self._opener = journal, metrics, watch, opener
        self._kept = kept
        self._loading = threading.Lock()
        self._stopped = threading.Event()
        self._refused: dict[str, Mark] = {}
        self.variants: tuple[Variant, ...] = ()
        for name, path, share in runs:
            mark = _mark(path)
            self.variants += (Variant(name, path, share, self._open(name, path), mark),)
        self._thread = threading.Thread(target=self._look, name="segue-watch", daemon=True)

    def start(self) -> None:
        """Begin to look for new runs."""
        self._thread.start()

    def stop(self) -> None:
        """End looking for new runs."""
        self._stopped.set()

    def choose(self, key: str | None, name: str | None = None) -> Variant:
        """The variant of a user, by a hash of the id; the named one if a name is given.

        Raises
        ------
        ConfigError
            There is no variant of this name.
        """
        variants = self.variants
        if name is not None:
            for variant in variants:
                if variant.name == name:
                    return variant
            raise ConfigError(f"there is no variant {name!r}: {nearest(name, [one.name for one in variants])}")
        if len(variants) == 1 or key is None:
            return variants[0]
        digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        point = int.from_bytes(digest) / 2**64
        for variant in variants:
            point -= variant.share
            if point < 0:
                return variant
        return variants[-1]

    def reload(self, only_changed: bool = False) -> tuple[list[str], list[str]]:
        """Open all runs again, and return the names of the variants that changed, and of the others.

        Parameters
        ----------
        only_changed
            Open only runs whose folder is another one than before, and whose new state was not refused before.

        Raises
        ------
        SegueError
            A new run cannot be served; all variants stay as they are.
        """
        with self._loading:
            reloaded: dict[str, Variant] = {}
            for variant in self.variants:
                mark = _mark(variant.path)
                if mark == variant.mark or (only_changed and self._refused.get(variant.name) == mark):
                    continue
                try:
                    served = self._open(variant.name, variant.path)
                except Exception as error:
                    self._refused[variant.name] = mark
                    self._metrics.reloads.labels("refused").inc()
                    log.error("%s was not loaded, and the old model stays: %s", variant.path, error)
                    for other in reloaded.values():
                        self._journal.leave(other.served.live)
                    raise
                reloaded[variant.name] = replace(variant, served=served, mark=mark)
            old = [variant.served.live for variant in self.variants if variant.name in reloaded]
            self.variants = tuple(reloaded.get(variant.name, variant) for variant in self.variants)
            for live in old:
                self._journal.leave(live)
            for name in reloaded:
                self._metrics.reloads.labels("done").inc()
                log.info("the variant %s has a new model", name)
            names = [variant.name for variant in self.variants]
            return [name for name in names if name in reloaded], [name for name in names if name not in reloaded]

    def _open(self, name: str, path: Path) -> Served:
        """Open and check a run, and fill its histories."""
        made = next((file.stat().st_mtime for file in map(path.joinpath, _MANIFESTS) if file.exists()), None)
        served = self._opener(path, str(path), made, *documents_of(self._journal.store))
        self._journal.follow(served.live)
        try:
            served.check()
        except BaseException:
            self._journal.leave(served.live)
            raise
        served.keep_lists(self._kept)
        self._metrics.loaded.labels(name).set(served.loaded)
        self._metrics.made.labels(name).set(served.made or 0)
        self._count(name, served)
        return served

    def _count(self, name: str, served: Served) -> None:
        self._metrics.live.labels(name).set_function(lambda: served.live.n_events)
        self._metrics.kept.labels(name).set_function(lambda: len(served.kept))

    def take_items(self) -> None:
        """Give all models the items that were put since they were opened."""
        with self._loading:
            documents, last = documents_of(self._journal.store)
            for number, variant in enumerate(self.variants):
                old = variant.served
                if old.last_item == last:
                    continue
                codes = old.catalogue.encode(list(documents)).tolist()
                first = sorted(zip(codes, documents, strict=True), key=lambda pair: pair[0] or _LAST)
                new = old.with_items({item: documents[item] for _, item in first}, last)  # no code may change
                new.loaded = old.loaded
                new.check()
                new.keep_lists(self._kept)

                def take(number: int = number, new: Served = new) -> LiveHistories:
                    variant = self.variants[number]
                    new.take_events(variant.served.live)
                    newer = replace(variant, served=new)
                    self.variants = (*self.variants[:number], newer, *self.variants[number + 1 :])
                    return new.live

                self._journal.exchange(old.live, take)
                self._count(variant.name, new)

    def make_ahead(self, n: int) -> bool:
        """Make the lists of the next n users of a variant; False if none is left."""
        return any(variant.served.make_ahead(n) for variant in self.variants)

    def _look(self) -> None:
        while not self._stopped.wait(self._watch):
            try:
                newest = min(variant.served.last_item for variant in self.variants)
                if self._journal.store.items(newest):
                    self.take_items()
                self.reload(only_changed=True)
            except SegueError:
                pass  # it was logged, and the old model stays
            except Exception as error:
                log.error("an unexpected error", exc_info=error)


def _mark(path: Path) -> Mark:
    """Target of a path, and the state of its manifests."""
    target = path.resolve()
    states = []
    for name in _MANIFESTS:
        try:
            state = (target / name).stat()
        except OSError:
            continue
        states.append((state.st_ino, state.st_mtime_ns, state.st_size))
    return str(target), tuple(states)
