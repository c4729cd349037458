"""Networks that begin with weights that are there already."""
