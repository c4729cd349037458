"""A network and a search space of one's own, for `modules=[mine.networks]`."""
