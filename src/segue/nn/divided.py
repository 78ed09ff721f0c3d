"""Tables whose rows are divided over the processes of a training.

Each process holds a contiguous range of the rows, with their gradients and the state of the optimizer. The rows that a
step reads travel from their owners by all-to-all, and their gradients travel back the same way. So the traffic of a
step grows with the rows that it reads, and not with the table.

Within `dividing`, models build such tables in place of whole ones. They draw the same weights: each process draws the
whole table piece by piece, and keeps its own rows.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from segue.nn.full_softmax import PiecewiseSoftmax, taken_gradients

_ROWS_DRAWN = 65_536
"""Rows that are drawn at once: a multiple of 16, because torch draws normal numbers in groups of 16."""


@dataclass
class Traffic:
    """Bytes that this process sent for divided tables since the last `clear`.

    Attributes
    ----------
    sent
        All bytes: codes, numbers of rows, rows, gradients, queries and sums.
    rows
        Bytes of the rows that it received from other processes, and of the gradients that it sent for them: the least
        that any exchange of rows needs.
    """

    sent: int = 0
    rows: int = 0

    def clear(self) -> None:
        """Begin to count anew."""
        self.sent = self.rows = 0


@dataclass(frozen=True, eq=False)
class Division:
    """Place of this process among those that share tables.

    Attributes
    ----------
    rank, world
        Number of this process from 0, and number of processes.
    group
        Processes as a group of its own, so that its messages keep their order beside those of other gradients; None
        while a model is only measured.
    """

    rank: int
    world: int
    group: dist.ProcessGroup | None = None
    traffic: Traffic = field(default_factory=Traffic)

    @classmethod
    def of_processes(cls) -> Division:
        """Return the place of this process in the initialised process group. All processes must call it together."""
        return cls(dist.get_rank(), dist.get_world_size(), dist.new_group())

    def rows(self, n_rows: int, rank: int | None = None) -> range:
        """Rows of a table of `n_rows` rows that a process holds: this one, or that with the given rank."""
        rank = self.rank if rank is None else rank
        return range(n_rows * rank // self.world, n_rows * (rank + 1) // self.world)

    def exchange(self, tensor: Tensor, sends: list[int], receives: list[int]) -> Tensor:
        """Send rows to every process, and return the rows (m, …) that they sent to this one.

        Parameters
        ----------
        tensor
            (n, …) rows, in the order of the processes that they go to.
        sends, receives
            Numbers of rows to and from each process.
        """
        received = tensor.new_empty(sum(receives), *tensor.shape[1:])
        dist.all_to_all_single(received, tensor.contiguous(), receives, sends, group=self.group)
        self.traffic.sent += (len(tensor) - sends[self.rank]) * tensor[:1].nbytes
        return received

    def total(self, tensor: Tensor) -> Tensor:
        """Sum of a tensor over all processes; in place."""
        dist.all_reduce(tensor, group=self.group)
        self.traffic.sent += 2 * tensor.nbytes * (self.world - 1) // self.world
        return tensor

    def highest(self, tensor: Tensor) -> Tensor:
        """Largest value over all processes, element by element; in place."""
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX, group=self.group)
        self.traffic.sent += 2 * tensor.nbytes * (self.world - 1) // self.world
        return tensor

    def gathered(self, tensor: Tensor) -> list[Tensor]:
        """Tensors (n, …) of all processes, which may have different lengths."""
        count = torch.tensor([len(tensor)], device=tensor.device)
        counts = [torch.empty_like(count) for _ in range(self.world)]
        dist.all_gather(counts, count, group=self.group)
        parts = []
        for rank, length in enumerate(counts):
            part = tensor.contiguous() if rank == self.rank else tensor.new_empty(int(length), *tensor.shape[1:])
            dist.broadcast(part, src=self._global(rank), group=self.group)
            parts.append(part)
        self.traffic.sent += (tensor.nbytes + count.nbytes) * (self.world - 1)
        return parts

    def scattered(self, parts: list[Tensor]) -> Tensor:
        """Sum over all processes of the part (n, …) that belongs to this one."""
        for rank, part in enumerate(parts):
            dist.reduce(part, dst=self._global(rank), group=self.group)
        self.traffic.sent += sum(part.nbytes for rank, part in enumerate(parts) if rank != self.rank)
        return parts[self.rank]

    def send(self, tensor: Tensor, rank: int) -> None:
        """Send a tensor to one process, which calls `receive`."""
        dist.send(tensor, self._global(rank), group=self.group)

    def receive(self, tensor: Tensor, rank: int) -> Tensor:
        """Fill a tensor with that of another process."""
        dist.recv(tensor, self._global(rank), group=self.group)
        return tensor

    def _global(self, rank: int) -> int:
        """Rank in the group of all processes."""
        return rank if self.group is None else dist.get_global_rank(self.group, rank)


_DIVISION: ContextVar[Division | None] = ContextVar("division", default=None)


def current_division() -> Division | None:
    """Division of the tables that are built now; None if they are whole."""
    return _DIVISION.get()


@contextmanager
def dividing(division: Division | None) -> Iterator[None]:
    """Within, models build divided tables; None leaves tables whole."""
    token = _DIVISION.set(division)
    try:
        yield
    finally:
        _DIVISION.reset(token)


class DividedTable(nn.Embedding):
    """Embedding whose weight holds the rows of this process alone.

    All processes must look rows up in step: each call is an exchange.

    Parameters
    ----------
    n_rows, width
        Size of the whole table.
    division
        Place of this process.

    Attributes
    ----------
    weight
        (own rows, width) rows of this process.
    codes
        Rows of the whole table that they are.
    reader
        Lookup of own rows for all processes. Its input is the rows' places in `weight`.
    """

    def __init__(self, n_rows: int, width: int, division: Division) -> None:
        codes = division.rows(n_rows)
        nn.Embedding.__init__(self, len(codes), width, _weight=torch.empty(len(codes), width))
        self.num_embeddings = n_rows
        self.division, self.codes = division, codes
        self.reader = RowReader()
        self.draw(nn.init.normal_)  # as an embedding does

    def draw(self, fill: Callable[[Tensor], object]) -> None:
        """Draw the rows as `fill` would draw those of the whole table, with the same random numbers."""
        with torch.no_grad():
            for piece in _pieces(self.num_embeddings):
                rows = self.weight.new_empty(len(piece), self.weight.shape[1])
                fill(rows)
                first, last = max(piece.start, self.codes.start), min(piece.stop, self.codes.stop)
                if first < last:
                    own = slice(first - self.codes.start, last - self.codes.start)
                    self.weight[own] = rows[first - piece.start : last - piece.start]

    def forward(self, codes: Tensor) -> Tensor:
        """Rows (…, width) of codes (…,), each read from its owner once."""
        distinct, inverse = torch.unique(codes, return_inverse=True)
        return F.embedding(inverse, self._rows(distinct))

    def _rows(self, codes: Tensor) -> Tensor:
        """Rows (n, width) of ascending distinct codes (n,)."""
        division = self.division
        ends = torch.tensor([division.rows(self.num_embeddings, rank).stop for rank in range(division.world)])
        bounds = torch.searchsorted(codes, ends.to(codes.device))
        sends = bounds.diff(prepend=bounds.new_zeros(1))
        ones = [1] * division.world
        receives = division.exchange(sends, ones, ones).tolist()
        sent = sends.tolist()
        small = codes.int() if self.num_embeddings <= torch.iinfo(torch.int32).max else codes
        wanted = division.exchange(small, sent, receives).long() - self.codes.start
        rows = self.reader(wanted, self.weight, self.sparse)
        received: Tensor = _Exchange.apply(rows, receives, sent, division)  # type: ignore[no-untyped-call]
        division.traffic.rows += (len(codes) - sent[division.rank]) * self.weight[:1].nbytes
        return received

    @abstractmethod
    def whole(self, weight: Tensor) -> nn.Embedding:
        """Return the same table, whole, with this weight (n_rows, width)."""


class RowReader(nn.Module):
    """Lookup in the own rows of a divided table; optimizers that defer updates watch it."""

    def forward(self, places: Tensor, weight: Tensor, sparse: bool) -> Tensor:
        """Rows (n, width) at places (n,) of a weight."""
        return F.embedding(places, weight, sparse=sparse)


class _Exchange(torch.autograd.Function):
    """Rows to their readers; the gradients of the rows go back to the owners.

    The trainer's gradients are means over the processes, so those of rows are sums over the processes divided by their
    number.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, sends: list[int], receives: list[int], division: Division) -> Tensor:
        ctx.sizes, ctx.division = (sends, receives), division
        return division.exchange(rows, sends, receives)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        division: Division = ctx.division
        sends, receives = ctx.sizes
        division.traffic.rows += (len(gradient) - receives[division.rank]) * gradient[:1].nbytes
        return division.exchange(gradient, receives, sends).div_(division.world), None, None, None


def divided_softmax(vectors: Tensor, table: DividedTable, targets: Tensor, normalise: bool = False) -> Tensor:
    """Summed loss of the full softmax (`full_softmax`) of this process's positions, among the rows of all processes.

    Every process scores its own rows for the positions of all processes. What travels are vectors, sums and gradients
    of positions, so the traffic does not depend on the number of items. The loss must have the same weight in all
    processes, because gradients are computed together with it.

    Parameters
    ----------
    vectors
        (n, width), one vector per position of this process; n may differ between processes.
    table
        Item vectors; row 0 is padding and does not count.
    targets
        (n,) int64 codes of the targets.
    normalise
        Divide the vector of each item by its length.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        vectors = vectors.to(table.weight.dtype)
        graded = torch.is_grad_enabled()
        loss: Tensor = _DividedSoftmax.apply(vectors, table.weight, targets, table, normalise, graded)  # type: ignore[no-untyped-call]
    return loss


class _DividedSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, vectors: Tensor, weight: Tensor, targets: Tensor, table: DividedTable, normalise: bool, graded: bool
    ) -> Tensor:
        division, start = table.division, table.codes.start
        parts = division.gathered(vectors)
        everyone = torch.cat(division.gathered(targets))
        first = 0 if start or not len(weight) else 1  # row 0 is padding
        softmax = PiecewiseSoftmax(torch.cat(parts), weight, everyone - start, normalise, first)
        total, target_scores = softmax.sums()
        highest = division.highest(total.clone())
        total = highest + division.total((total - highest).exp_()).log_()
        target_scores = division.total(target_scores)
        lengths = [len(part) for part in parts]
        own = slice(sum(lengths[: division.rank]), sum(lengths[: division.rank + 1]))
        ctx.division, ctx.gradients = division, None
        if graded and any(ctx.needs_input_grad):
            of_vectors, of_weight = softmax.gradients(total, whole=False)
            shares = torch.split(of_vectors, lengths)
            ctx.gradients = division.scattered([share.contiguous() for share in shares]), of_weight
        return (total[own] - target_scores[own]).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        of_vectors, of_weight = taken_gradients(ctx)
        return of_vectors.mul_(gradient), of_weight.mul_(gradient / ctx.division.world), None, None, None, None


def _pieces(n_rows: int) -> Iterator[range]:
    """Ranges of rows to draw one after the other. The last one is the longest, because 16 numbers are one group."""
    count = max(n_rows // _ROWS_DRAWN, 1)
    for piece in range(count):
        yield range(piece * _ROWS_DRAWN, n_rows if piece + 1 == count else (piece + 1) * _ROWS_DRAWN)
