"""Evaluation: tasks with their metrics, candidates, comparison, explanations and the report."""
