"""ARERec: ratings predicted from an item's own history."""
