"""Usual time between two interactions of a user."""

from __future__ import annotations

import numpy as np

from segue.data.dataset import Dataset
from segue.data.ragged import positions


def usual_gap(dataset: Dataset) -> int:
    """Median time from one visible interaction of a user to the next one at another time; 1 if there is none.

    Of two middle values it takes the smaller, so that the result in another unit is exactly the same time.
    """
    assert dataset.times is not None
    ends = dataset.ends[dataset.lengths > 0]
    starts = dataset.starts[dataset.lengths > 0]
    later = positions(starts + 1, ends)
    gaps = dataset.times[later] - dataset.times[later - 1]
    gaps = gaps[gaps > 0]
    if not len(gaps):
        return 1
    middle = (len(gaps) - 1) // 2
    return int(np.partition(gaps, middle)[middle])
