"""The command line: one thin file per command, and no logic of its own."""
