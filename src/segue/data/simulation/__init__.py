"""Simulator of shopping baskets with a known truth."""
