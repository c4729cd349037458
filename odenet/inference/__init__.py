"""A trained network as it is used: normalisation inside, from raw images to classes."""
