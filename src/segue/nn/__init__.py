"""Layers and losses that two or more models use."""
