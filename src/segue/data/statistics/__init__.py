"""Statistics of a Dataset, for the terminal, as JSON and as a picture."""
