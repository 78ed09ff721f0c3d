"""From raw ids, given histories and baskets to rows of `Histories`."""
