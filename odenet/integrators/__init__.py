"""Integrators over depth: schemes as data, how they step, and how their integrations are differentiated."""
