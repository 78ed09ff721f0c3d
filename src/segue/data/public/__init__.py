"""Public datasets by name: fetched once, verified, kept in a cache."""
