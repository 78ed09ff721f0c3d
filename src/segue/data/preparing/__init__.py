"""Preparation: from a log to a Dataset on disk, in bounded memory."""
