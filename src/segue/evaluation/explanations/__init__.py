"""Explanations averaged, drawn, and held against a planted truth."""
