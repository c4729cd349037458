"""What the trials of a search say: of each parameter, of more trials, of the same configuration elsewhere."""
