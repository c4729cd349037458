"""Tab completion: print the shell's script, and complete a half-written command line."""

import os
import sys
from pathlib import Path

from sweep.cli.command_line import CONFIG_FILE, OWN_KEYS, with_config_file
from sweep.cli.commands import STAGES
from sweep.cli.parse import OF_STAGE
from sweep.errors import InputError

BEGINS = ("search", "study")  # what they name is not there yet
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
    """Complete the last word of a half-written command line: a stage, then a sweep's name, options, keys and values."""
    typed = line.split()[1:] + ([""] if line[-1:].isspace() else [])
    word = typed[-1] if typed else ""
    if len(typed) <= 1 or typed[0] == "help":
        return [stage for stage in (*STAGES, "help") if stage.startswith(word)]
    if typed[-2] in {"--cfg", "-c"}:
        return ["job"]
    if word.startswith("-"):
        flags = [flag for flag, stages in OF_STAGE.items() if typed[0] in stages]
        options = dict.fromkeys(["--help", "--cfg", *CONFIG_FILE.values(), *flags])
        return [option for option in options if option.startswith(word)]
    names = [name for name in _names(typed) if name.startswith(word)]
    if names and not word:
        return names
    from sweep.config.compose import completions

    stage, others = typed[0], with_config_file(typed[:-1])
    own = completions(f"{stage}.{word}", others) if stage in OWN_KEYS else []
    return [*names, *(text.removeprefix(f"{stage}.") for text in own), *completions(word, others)]


def _names(typed: list[str]) -> list[str]:
    """List the sweeps and studies that may follow a stage, where it lacks a name: what has a configuration."""
    stage, *words = typed
    given = [word for word in words[:-1] if "=" not in word and not word.startswith("-")]
    if stage not in STAGES or stage in BEGINS or len(given) >= STAGES[stage].names[1]:
        return []
    from sweep.config.schema import AppConfig
    from sweep.records.run_directory import SweepFiles, is_former

    said = [word.partition("=")[2] for word in words if word.startswith("runtime.runs_dir=")]
    runs = Path([AppConfig().runtime.runs_dir, *said][-1])
    found = [path for pattern in ("*", "*/*") for path in runs.glob(pattern) if not is_former(path)]
    kept = {path: SweepFiles(path) for path in found if path.name != "final" and not is_former(path.parent)}
    names = {
        str(path.relative_to(runs)) for path, its in kept.items() if any(map(os.path.exists, (its.config, its.study)))
    }
    return sorted(names - set(given))
