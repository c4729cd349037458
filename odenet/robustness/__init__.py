"""Robustness of trained networks: against corruption and against attack."""
