"""Scores, exact top-k lists and exact ranks."""
