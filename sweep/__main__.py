"""The command `sweep`: take the command line apart, run one stage, and turn what went wrong into an exit code.

0 done, 1 the work failed (what is kept is said), 2 the user's input is wrong (one message), 130 interrupted.
"""

import sys

from rich.console import Console
from rich.text import Text

from sweep.cli.command_line import VERSION, Command
from sweep.cli.commands import STAGES
from sweep.cli.completion import shell_completion
from sweep.cli.parse import help_text, parse
from sweep.cli.run_stages import print_config
from sweep.errors import InputError, WorkError

DISTRIBUTION = "continuous-depth-sweep"  # what is installed
PIPE_WIDTH = 250  # columns of a table that goes to a file or a pipe: no window limits it


def main() -> None:
    """Run the console command on sys.argv and exit with its code."""
    sys.exit(run(sys.argv[1:]))


def run(argv: list[str]) -> int:
    """Run one command line and return its exit code."""
    try:
        _dispatch(parse(argv), _console())
    except InputError as error:
        return _say("sweep:", "red", error, code=2)
    except WorkError as error:
        return _say("sweep:", "red", error, code=1)
    except KeyboardInterrupt as error:
        return _say("sweep: interrupted.", "yellow", error, code=130)
    except OSError as error:  # of a file that nothing above has an answer for
        what = error.strerror or error
        return _say("sweep:", "red", f"{error.filename}: {what}." if error.filename else f"{what}.", code=1)
    return 0


def _console() -> Console:
    """Build a console without markup, because names, paths and reasons hold brackets of their own."""
    console = Console(soft_wrap=True, markup=False)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    return console


def _say(head: str, style: str, error: BaseException | str, code: int) -> int:
    """Print what went wrong, with control characters spelled out, because what the user wrote comes back in it."""
    errors = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    text = "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in str(error))
    errors.print(Text.assemble((head, style), " ", text))
    return code


def _dispatch(command: Command, console: Console) -> None:
    if command.flags[:1] == ["--help"]:
        console.print(help_text(command.stage), highlight=False)
    elif command.flags[:1] == [VERSION]:
        from importlib.metadata import version

        console.print(f"sweep {version(DISTRIBUTION)}", highlight=False)
    elif not command.stage:
        shell_completion(command.flags)
    else:
        run = print_config if "--cfg" in command.flags else STAGES[command.stage].run
        run(command, console)


if __name__ == "__main__":
    main()
