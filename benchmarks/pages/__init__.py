"""Markdown tables of each page, made from results by file name; `tables.py` writes them into the pages."""
