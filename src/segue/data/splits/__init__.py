"""Splits: views that may be learnt from, and questions with known answers."""
