"""The command `sweep`: take the command line apart, run one stage, and turn what went wrong into an exit code.

0 done, 1 the work failed (what is kept is said), 2 the user's input is wrong (one message), 130 interrupted.
"""

import os
import signal
import sys

from rich.console import Console
from rich.text import Text

from sweep.cli.command_line import VERSION, Command
from sweep.cli.commands import STAGES
from sweep.cli.completion import shell_completion
from sweep.cli.parse import help_text, parse
from sweep.cli.run_views import print_config
from sweep.config.credentials import hidden, take_from_words
from sweep.console import PlainConsole, printable, say, wrapped
from sweep.errors import InputError, WorkError
from sweep.interpreter import DISTRIBUTION

PIPE_WIDTH = 250  # columns of a table that goes to a file or a pipe, where COLUMNS does not say: no window limits it


def main() -> None:
    """Run the console command on sys.argv and exit with its code. Arguments are seen by every user of the machine, so
    that a password in them is moved to the environment first."""
    words = take_from_words(sys.orig_argv)
    if words != sys.orig_argv:
        os.execv(sys.executable, words)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # it is told as Ctrl-C is
    sys.exit(run(sys.argv[1:]))


def run(argv: list[str]) -> int:
    """Run one command line and return its exit code. What it writes, and what its processes do, is for its user only:
    paths, addresses and parameters are nobody else's."""
    os.umask(0o077)
    try:
        _dispatch(parse(take_from_words(argv)), _console())
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
    console = PlainConsole()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPE_WIDTH
    return console


def _say(head: str, style: str, error: BaseException | str, code: int) -> int:
    """Print what went wrong, which may quote what the user wrote."""
    errors = PlainConsole(stderr=True, highlight=False)
    first, *more = [
        line for part in f"{head} {hidden(str(error))}".rstrip().split("\n") for line in wrapped(errors, part)
    ]
    errors.print(Text.assemble((head, style), printable(first.removeprefix(head))))
    for line in more:
        errors.print(line)
    return code


def _dispatch(command: Command, console: Console) -> None:
    if command.flags[:1] == ["--help"]:
        for line in help_text(command.stage).splitlines():
            say(line, console)
    elif command.flags[:1] == [VERSION]:
        from importlib.metadata import PackageNotFoundError, version

        try:
            console.print(f"sweep {version(DISTRIBUTION)}", highlight=False)
        except PackageNotFoundError:  # a checkout that PYTHONPATH names
            console.print("sweep of a checkout that is not installed", highlight=False)
    elif not command.stage:
        shell_completion(command.flags)
    else:
        run = print_config if "--cfg" in command.flags else STAGES[command.stage].run
        run(command, console)


if __name__ == "__main__":
    main()
