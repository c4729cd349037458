"""The command `sweep`: takes the command line apart, runs one stage, and turns what went wrong into an exit code.

0 done, 1 the work failed (what is kept is said), 2 the user's input is wrong (one message), 130 interrupted.
"""

import sys

from rich.console import Console
from rich.markup import escape

from sweep.commandline import Command, help_text, hydra_completion, parse
from sweep.errors import InputError, WorkError


def main() -> None:
    """The console command."""
    sys.exit(run(sys.argv[1:]))


def run(argv: list[str]) -> int:
    """Runs one command line and returns its exit code."""
    errors = Console(stderr=True, soft_wrap=True, highlight=False)
    try:
        _dispatch(parse(argv), Console(soft_wrap=True))
    except InputError as error:
        errors.print(f"[red]sweep:[/red] {escape(str(error))}")
        return 2
    except WorkError as error:
        errors.print(f"[red]sweep:[/red] {escape(str(error))}")
        return 1
    except KeyboardInterrupt as error:
        errors.print(f"[yellow]sweep: interrupted.[/yellow] {escape(str(error))}")
        return 130
    return 0


def _dispatch(command: Command, console: Console) -> None:
    if command.flags[:1] == ["--help"]:
        console.print(help_text(command.stage), markup=False, highlight=False)
    elif not command.stage:
        hydra_completion(command.flags)
    else:
        from sweep import stages

        if command.flags:
            stages.print_config(command, console)
        else:
            stages.RUN[command.stage](command, console)


if __name__ == "__main__":
    main()
