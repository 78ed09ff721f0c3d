"""Explanations: their averages, pictures and tests against a planted truth."""
