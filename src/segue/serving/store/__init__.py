"""Stores of events: one protocol, in SQLite and in PostgreSQL."""
