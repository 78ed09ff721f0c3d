"""The tables of each page, as Markdown, from results by the name of their file; `tables.py` puts them there."""
