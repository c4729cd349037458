"""The search spaces: what each family of networks is searched over, as values. Standard library only.

A family is a network, and its space has the network's name; `smoke` is no family.
"""

import re
from collections.abc import Mapping

from search_spaces.common import SHARED, shared
from search_spaces.continuous import CONTINUOUS, CONTINUOUS_IN_DEPTH
from search_spaces.parameters import Choice, Float, Int, Parameter, When, fixed
from search_spaces.residual import RESIDUAL, RESNET
from search_spaces.reversible import REVERSIBLE
from search_spaces.scaled import SCALED
from search_spaces.smoke import SMOKE
from search_spaces.space import Space
from search_spaces.written import as_written, from_written

_FAMILIES = (RESNET, CONTINUOUS, *CONTINUOUS_IN_DEPTH, *REVERSIBLE, *SCALED, *RESIDUAL)

SPACES: dict[str, Space] = {**{str(space.fixed["model.network"]): space for space in _FAMILIES}, "smoke": SMOKE}

__all__ = [
    "OURS",
    "SHARED",
    "SPACES",
    "Choice",
    "Float",
    "Int",
    "Parameter",
    "Space",
    "When",
    "add_spaces",
    "as_written",
    "check_name",
    "fixed",
    "from_written",
    "shared",
]

OURS = frozenset(SPACES)  # without those that are added


def check_name(name: object) -> str:
    """Return the name of a space that is not of this package; ValueError where it is one of these, or none."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}", name):
        raise ValueError(
            f"A space cannot be called {name!r}: letters, digits, '.', '_' and '-', beginning with a letter or digit, "
            "at most 40 of them."
        )
    if name.endswith(SHARED):
        raise ValueError(f"A space cannot be called {name}: {SHARED} ends the names of spaces without own dimensions.")
    if name in OURS:
        raise ValueError(f"{name} is the name of another space; give yours one of its own.")
    return name


def add_spaces(spaces: Mapping[str, Space]) -> None:
    """Add spaces that are defined outside this package. ValueError: a name is not possible or another's, or what it
    names is no space."""
    for name, space in spaces.items():
        if not isinstance(space, Space):
            raise ValueError(f"The space {name} must be a Space, not {space!r}.")
        if SPACES.setdefault(check_name(name), space) is not space:
            raise ValueError(f"There is a space called {name} already; call yours otherwise.")
