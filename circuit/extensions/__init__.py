"""Side rooms of Circuit: found by entry point, imported by nobody, never by each other."""
