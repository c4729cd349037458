"""The data: published sets, class-balanced low-data draws of them, and augmented batches on a device."""
