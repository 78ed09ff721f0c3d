"""Reasons: effects of the parts of a history, attention, and neighbours of expected ratings."""
