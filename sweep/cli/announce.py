"""What a command says that it is going to do, before libraries are loaded for seconds, and what may follow it."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from sweep.console import say

if TYPE_CHECKING:
    from sweep.config.schema import AppConfig


def begin(stage: str, name: str, config: "AppConfig", console: Console) -> None:
    """Print what is going to be done, before the libraries are loaded that judge the rest of it.

    Raises:
        InputError: the name is not possible, or taken.
    """
    from sweep.cli.existing import shown
    from sweep.records.run_directory import free_directory

    directory = free_directory(config, name)
    say(f"{stage} {name}: {described(stage, config)}, in {shown(directory)}", console)


def described(stage: str, config: "AppConfig") -> str:
    """Write what a stage is going to search, in one line."""
    search, draws = config.search, ", ".join(map(str, config.study.draws))
    spaces = f"space {config.space.label}"
    if stage == "study":
        sizes = f"{', '.join(map(str, config.study.sizes))} per class of " if config.study.sizes else ""
        searched = ", ".join(one.value for one in config.study.spaces)
        which = "" if searched == "full" else f" ({searched})"
        spaces = f"spaces {', '.join(config.study.families)}{which} on draws {draws} of {sizes}the data, each"
    return (
        f"{spaces}, {search.trials} trials of {config.study.lasting(config.training.epochs)} on {config.data.name}, "
        f"sampler {search.sampler.value}, scheduler {search.scheduler.value}"
    )


def loads_torch(what: str, console: Console) -> None:
    """Say why there is no sign of life for some seconds; searches leave PyTorch to their workers."""
    console.print(f"{what}: loading PyTorch (about 4 s)", highlight=False)


def say_next(name: str, console: Console) -> None:
    console.print(f"Next: sweep final {name}; sweep report {name}; sweep ui {name}", highlight=False)


def say_report(report: Path, name: str, console: Console) -> None:
    from sweep.cli.existing import shown

    console.print(f"Open the report: {shown(report)}", highlight=False)
    console.print(f"Then: sweep status {name}; sweep ui {name}", highlight=False)
