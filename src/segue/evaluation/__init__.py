"""How good the answers are: metrics, candidates, evaluation, comparison, report."""
