"""Tasks: next items, sessions and ratings, with all that differs between them."""
