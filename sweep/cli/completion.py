"""Tab completion: print the shell's script, and complete a half-written command line."""

import os
import sys

from sweep.cli.command_line import OWN_KEYS
from sweep.cli.commands import STAGES
from sweep.errors import InputError

SHELLS = {"bash": " ", "zsh": " ", "fish": "\n"}  # with what each has between the candidates


def shell_completion(words: list[str]) -> None:
    """Print the shell's script, which is Hydra's, for `-sc install=bash`; for `-sc query=bash`, which that script calls
    with COMP_LINE set, print the candidates.

    Raises:
        InputError: another command or shell.
    """
    command, _, shell = " ".join(words).partition("=")
    if command not in {"install", "uninstall", "query"} or shell not in SHELLS:
        raise InputError(
            f"-sc {' '.join(words)}: possible are install, uninstall and query for {', '.join(SHELLS)}, such as "
            "-sc install=bash."
        )
    if command == "query":
        sys.stdout.write(SHELLS[shell].join(candidates(os.environ.get("COMP_LINE", ""))) + "\n")
        return
    import hydra

    sys.argv = [sys.argv[0], "-sc", *words]
    hydra.main(version_base="1.3", config_path="pkg://sweep.config.conf", config_name="config")(lambda _: None)()


def candidates(line: str) -> list[str]:
    """Complete the last word of a half-written command line: first a stage, then options, keys and values."""
    typed = line.split()[1:] + ([""] if line[-1:].isspace() else [])
    word = typed[-1] if typed else ""
    if len(typed) <= 1:
        return [stage for stage in STAGES if stage.startswith(word)]
    if typed[-2] in {"--cfg", "-c"}:
        return ["job"]
    if word.startswith("-"):
        return [option for option in ("--help", "--cfg") if option.startswith(word)]
    from sweep.config.compose import completions

    stage = typed[0]
    own = completions(f"{stage}.{word}") if stage in OWN_KEYS else []
    return [*(text.removeprefix(f"{stage}.") for text in own), *completions(word)]
