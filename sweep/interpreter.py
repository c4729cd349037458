"""This project as Python knows it, and processes that a command starts: they import the very packages that this one
has, and run as it does."""

import os
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

DISTRIBUTION = "continuous-depth-sweep"  # what is installed
ABSENT = "absent"
PACKAGES = ("odenet", "search_spaces", "sweep")  # of it; the nodes of a cluster get them from here

# What of the user's Python variables is for a process that they start themselves: it would skip assertions that
# libraries rely on, raise warnings of libraries as errors, or wait for words that nobody types.
_OF_THIS_PROCESS = (
    "PYTHONOPTIMIZE", "PYTHONWARNINGS", "PYTHONINSPECT", "PYTHONSTARTUP", "PYTHONBREAKPOINT", "PYTHONDEVMODE",
    "PYTHONVERBOSE", "PYTHONPROFILEIMPORTTIME", "PYTHONTRACEMALLOC", "PYTHONASYNCIODEBUG",
)  # fmt: skip


def installed_version(name: str) -> str:
    """Return the version of a package, and `ABSENT` where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ABSENT


def import_path() -> str:
    """Return the PYTHONPATH by which another process of this interpreter finds each module where this one does, and not
    in the directory that it is started in."""
    entries = [Path(entry).absolute() for entry in sys.path]
    return os.pathsep.join(dict.fromkeys(str(entry) for entry in entries if entry.exists()))


def python_environment() -> dict[str, str]:
    """Return the environment for another process of this interpreter."""
    kept = {name: value for name, value in os.environ.items() if name not in _OF_THIS_PROCESS}
    return {**kept, "PYTHONPATH": import_path(), "PYTHONSAFEPATH": "1"}
