"""The parsed command line, and the description of a stage of the command."""

from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console

VERIFY, AGAIN, VERSION = "--verify", "--again", "--version"
OWN_KEYS = {"export": "format"}  # a stage's key that is said without its section: format=onnx for export.format=onnx


@dataclass(frozen=True, slots=True)
class Command:
    """A parsed command line. `flags` are --help, --version, --cfg job, --verify, --again, or what follows -sc."""

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
