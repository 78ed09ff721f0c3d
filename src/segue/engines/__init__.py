"""Engines: the parts of a job, run by this process, by processes of this machine, or by a Ray cluster."""
