"""Weights as functions of depth: bases, what the stages of an integration read, and matrices from grid to grid."""
