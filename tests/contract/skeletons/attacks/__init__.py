"""One attack of each shape."""
