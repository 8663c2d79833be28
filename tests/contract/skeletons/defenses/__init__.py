"""A defense."""
