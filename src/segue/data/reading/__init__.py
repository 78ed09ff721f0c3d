"""Reading: a log in any common format, or a frame of any library, as a lazy frame of known columns."""
