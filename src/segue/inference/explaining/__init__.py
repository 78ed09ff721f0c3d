"""Reasons: effects of what is left out, attention, and neighbours."""
