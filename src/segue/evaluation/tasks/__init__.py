"""How each kind of question is measured: next items, sessions, ratings."""
