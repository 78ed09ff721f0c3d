"""From the arguments of a question (raw ids, given histories, baskets, a time) to rows of `Histories`."""
