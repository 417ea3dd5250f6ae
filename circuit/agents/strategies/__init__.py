"""Ways of working, one to a file, all on the same session."""
