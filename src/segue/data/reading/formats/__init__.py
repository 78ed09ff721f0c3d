"""The formats of files, one class each; `registry.py` lists them."""
