"""ARERec: ratings predicted from the history of the item."""
