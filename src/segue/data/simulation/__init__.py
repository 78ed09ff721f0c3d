"""The simulator of shopping baskets, whose truth is known."""
