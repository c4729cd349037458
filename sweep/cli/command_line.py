"""The parsed command line, and the description of a stage of the command."""

from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console

VERIFY, AGAIN, VERSION = "--verify", "--again", "--version"
WIDE, CSV, JSON = "--wide", "--csv", "--json"


@dataclass(frozen=True, slots=True)
class Command:
    """A parsed command line. `flags` are --help, --version, --cfg job, those of single stages such as --verify, or what
    follows -sc."""

    stage: str
    names: list[str]
    overrides: list[str]
    flags: list[str]


@dataclass(frozen=True, slots=True)
class StageCommand:
    """A stage of the command. `names`: how many names follow it, at least and at most."""

    run: Callable[[Command, Console], None]
    summary: str
    usage: str
    names: tuple[int, int]
    details: str
