"""What Circuit shows of itself to those who run it."""
