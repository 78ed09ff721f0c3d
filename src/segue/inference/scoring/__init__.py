"""Scores of items, exact top-k lists and exact ranks."""
