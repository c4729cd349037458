"""What a test adds to the networks and spaces there are, taken away again."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from odenet.enums import Network
from odenet.networks.table import NETWORKS
from search_spaces import SPACES

NETWORK = """
from dataclasses import replace
from odenet import Network, Scheme
from odenet.networks import table
from search_spaces import Choice, Space, fixed

NETWORKS = {{"{name}": replace(table.NETWORKS[Network.continuous], scheme=Scheme.heun, source="a test")}}
SPACES = {{"{name}": Space({{"model.network": fixed("{name}"), "model.nodes": Choice((1, 2))}})}}
"""


@contextmanager
def taken_away() -> Iterator[None]:
    """Take away, at the end, what was added to the enumeration, the tables, the modules and the path."""
    networks, spaces, modules, path = list(Network.__members__), dict(SPACES), set(sys.modules), list(sys.path)
    try:
        yield
    finally:
        kind: Any = Network
        for name in set(Network.__members__) - set(networks):
            NETWORKS.pop(kind._member_map_[name], None)
            kind._member_names_.remove(name)
            del kind._member_map_[name], kind._value2member_map_[name]
            type.__delattr__(Network, name)
        SPACES.clear()
        SPACES.update(spaces)
        for name in set(sys.modules) - modules:
            del sys.modules[name]
        sys.path[:] = path
