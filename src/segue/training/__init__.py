"""Fitting any model: batches, the trainer, checkpoints, curves."""
