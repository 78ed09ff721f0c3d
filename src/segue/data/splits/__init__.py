"""Splits: a training view, and the held-out interactions that choose and judge a model."""
