"""Assignment of training examples to batches."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from segue.data.ragged import Int64


def n_batches(n_examples: int, batch_size: int) -> int:
    """Number of steps of an epoch."""
    return max(1, round(n_examples / batch_size))


def plan_epoch(
    lengths: Int64, weights: Int64, batch_size: int, generator: np.random.Generator
) -> list[npt.NDArray[np.int64]]:
    """Divide the examples into batches of similar length and about equal weight, in random order.

    Examples are sorted by length, those of equal length in random order. A batch ends when its summed weight reaches
    `batch_size` times the mean. Every example is in exactly one batch. So there is almost no padding, every loss term
    counts about the same, and every step costs about the same: few long examples or many short ones.

    Parameters
    ----------
    lengths
        (n,) length of each example.
    weights
        (n,) loss terms of each example.
    batch_size
        Mean number of examples in a batch.
    generator
        Source of the random order.
    """
    shuffled = generator.permutation(len(lengths))
    order = shuffled[np.argsort(lengths[shuffled], kind="stable")]
    total = np.cumsum(weights[order])
    count = n_batches(len(lengths), batch_size)
    targets = total[-1] * np.arange(1, count) // count
    cuts = np.unique(np.searchsorted(total, targets, side="right"))
    batches = [batch for batch in np.split(order, cuts) if len(batch)]
    return [batches[position] for position in generator.permutation(len(batches))]
