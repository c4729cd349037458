"""Experiments as values; training, measuring and keeping networks."""
