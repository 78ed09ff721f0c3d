"""Tables beside the log: properties of the items and of the users."""
