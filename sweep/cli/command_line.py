"""The parsed command line, and the description of a stage of the command."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console

VERIFY, AGAIN, VERSION = "--verify", "--again", "--version"
FIGURES = "--figures"  # with a directory
# The user's own configuration file, called as Hydra does.
CONFIG_FILE = {
    "--config-dir": "--config-dir", "-cd": "--config-dir", "--config-name": "--config-name", "-cn": "--config-name",
}  # fmt: skip
WIDE, CSV, JSON = "--wide", "--csv", "--json"
FOLLOW = "--follow"
SUBMIT, JOB_SERVER = "submit", "cluster.job_server="
TRIAL = "--trial"  # with a number
FROM_THE_BEGINNING = ("search", "study")  # stages whose name is new
SUBMITTED = (*FROM_THE_BEGINNING, "resume", "extend", "final", "evaluate", "export", "report", "deliver")
OWN_KEYS = {"export": "format"}  # a stage's key that is said without its section: format=onnx for export.format=onnx


@dataclass(frozen=True, slots=True)
class Command:
    """A parsed command line. `flags` are --help, --version, --cfg job, those of single stages such as --verify, with
    the value of one that has any, or what follows -sc. The configuration file, --config-dir=DIR and --config-name=NAME,
    stands among the overrides."""

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


def with_config_file(words: Sequence[str]) -> list[str]:
    """Write the options of the configuration file as one word each, --config-dir=DIR, where they have a value."""
    joined: list[str] = []
    for word in words:
        option, _, _ = word.partition("=")
        if joined and joined[-1] in CONFIG_FILE.values():
            joined[-1] += f"={word}"
        else:
            joined.append(CONFIG_FILE[option] + word[len(option) :] if option in CONFIG_FILE else word)
    return joined
