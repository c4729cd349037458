"""Networks as rows of a table: rates, blocks and transitions, and changes of their depth."""

from typing import Any


def __getattr__(name: str) -> Any:
    """Find `Pool` here as well, where networks name it that were pickled when this folder was a module."""
    if name != "Pool":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from odenet.networks.table import Pool

    return Pool
