"""Data: reading, preparation, the Dataset, histories, splits, statistics."""
