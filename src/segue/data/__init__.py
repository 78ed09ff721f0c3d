"""What happened: reading, preparation, the Dataset, histories, splits, statistics."""
