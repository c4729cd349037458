"""argv to (stage, name, overrides), the help texts, and tab completion: what stands before Hydra's overrides."""

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from sweep.errors import InputError


@dataclass(frozen=True, slots=True)
class Stage:
    """What `sweep --help` says of a stage. `names`: how many names follow it, at least and at most."""

    summary: str
    usage: str
    names: tuple[int, int]
    details: str


STAGES: dict[str, Stage] = {
    "plan": Stage(
        "checks a configuration before anything is spent",
        "sweep plan [KEY=VALUE ...]",
        (0, 0),
        "Checks space, data and storage, trains two iterations of the cheapest and the dearest configuration, and prints\n"
        "trials x epochs x cost. Writes nothing.",
    ),
    "search": Stage(
        "runs a sweep: Optuna proposes, Ray Tune runs trials, MLflow records",
        "sweep search NAME [KEY=VALUE ...]",
        (1, 1),
        "Writes best.yaml, trials.csv and curves.csv to runs/NAME.\n"
        "  space=resnet|continuous|smoke      what is searched\n"
        "  space.fix.model.scheme=rk4         a parameter fixed\n"
        "  space.range.optim.lr=[1e-3,1e-1]   a parameter narrowed\n"
        "  search.trials=50 search.sampler=random search.scheduler=asha\n"
        "  data=cifar10 data.per_class=100 runtime.data_dir=DIR",
    ),
    "status": Stage(
        "table of sweeps or of one sweep's trials",
        "sweep status [NAME] [runtime.runs_dir=DIR]",
        (0, 1),
        "Outcomes, reasons, cost so far and best so far, also while the sweep runs.",
    ),
    "final": Stage(
        "confirms the best trials over seeds, retrains the crowned one",
        "sweep final NAME|path/to/best.yaml [KEY=VALUE ...]",
        (1, 1),
        "Retrains the top configurations on train over seeds, crowns the best mean, retrains it on train+val over fresh\n"
        "seeds, registers the first of these as champion. A best.yaml is retrained in a new run directory.\n"
        "  final.top=3 final.confirm_seeds=3 final.seeds=10",
    ),
    "evaluate": Stage(
        "tests the final networks: clean, and under other schemes and steps",
        "sweep evaluate NAME [KEY=VALUE ...]",
        (1, 1),
        "Reads the test set, once, and writes rows.csv.\n"
        "  evaluate.schemes=[euler,rk4] evaluate.step_factors=[0.5,1,2,4]",
    ),
    "report": Stage(
        "one self-contained HTML report",
        "sweep report NAME [NAME ...]",
        (1, 1000),
        "A study's name stands for all its sweeps. Opens offline.",
    ),
    "study": Stage(
        "all of the above over families and draws on equal budgets",
        "sweep study NAME [KEY=VALUE ...]",
        (1, 1),
        "  study.families=[resnet,continuous] study.draws=[0,1,2] search.trials=12",
    ),
    "ui": Stage(
        "MLflow's page and Optuna's dashboard on loopback",
        "sweep ui NAME [tracking.port=5000]",
        (1, 1),
        "Serves until Ctrl-C.",
    ),
}

FLAGS = ("--help", "-h", "--cfg", "-c", "-sc", "--shell-completion", "--shell_completion")


@dataclass(frozen=True, slots=True)
class Command:
    """A command line taken apart. `flags` are what Hydra itself answers, e.g. --cfg job."""

    stage: str
    names: list[str]
    overrides: list[str]
    flags: list[str]


def parse(argv: list[str]) -> Command:
    """Raises InputError: an unknown stage or flag, a missing or superfluous name."""
    if not argv or argv[0] in {"-h", "--help"}:
        return Command("", [], [], ["--help"])
    if argv[0] in FLAGS:
        return Command("", [], [], argv)
    stage, *rest = argv
    if stage not in STAGES:
        near = difflib.get_close_matches(stage, STAGES, n=1)
        meant = f"did you mean {near[0]}? " if near else ""
        raise InputError(f"There is no stage {stage!r}; {meant}Stages are {', '.join(STAGES)}.")
    names, overrides, flags = _sort(rest)
    if not flags:
        _check_names(stage, names)
    return Command(stage, names, overrides, flags)


def _sort(words: list[str]) -> tuple[list[str], list[str], list[str]]:
    """Names, overrides and flags; `--cfg job` is two words."""
    names, overrides, flags = [], [], []
    words = list(words)
    while words:
        word = words.pop(0)
        if word in {"--cfg", "-c"}:
            kind = words.pop(0) if words else ""
            if kind != "job":
                raise InputError(
                    f"{word} {kind}: only `{word} job` is possible, which prints the composed configuration."
                )
            flags += ["--cfg", "job"]
        elif word in {"-h", "--help"}:
            flags.append("--help")
        elif word.startswith("-"):
            raise InputError(f"There is no option {word}; --help and --cfg job are possible.")
        elif "=" in word or word.startswith(("+", "~")):
            overrides.append(word)
        else:
            names.append(word)
    return names, overrides, flags


def _check_names(stage: str, names: list[str]) -> None:
    least, most = STAGES[stage].names
    if len(names) < least:
        raise InputError(f"`sweep {stage}` needs a name: {STAGES[stage].usage}")
    if len(names) > most:
        raise InputError(f"{names[most]!r} is one name too many, or lacks its `=`: {STAGES[stage].usage}")


def help_text(stage: str) -> str:
    """What --help prints, for all stages or for one."""
    if stage:
        one = STAGES[stage]
        return (
            f"usage: {one.usage}\n\n{one.summary}\n\n{one.details}\n\n"
            "Any key of the configuration can be set by KEY=VALUE; --cfg job prints all of them with their values."
        )
    width = max(map(len, STAGES))
    lines = [f"  {name:<{width}}  {row.summary}" for name, row in STAGES.items()]
    return "\n".join(
        [
            "usage: sweep STAGE [NAME] [KEY=VALUE ...]",
            "",
            "Searches, retrains and compares networks that are continuous in depth.",
            "",
            *lines,
            "",
            "`sweep STAGE --help` explains a stage, `sweep STAGE --cfg job` prints its configuration.",
            'Tab completion: eval "$(sweep -sc install=bash)"',
        ]
    )


def completion_line(environment: Mapping[str, str]) -> tuple[str, list[str]]:
    """What Hydra is to complete, without stage and names; and what is completed here instead: the stages.

    Hydra knows only overrides, and the completion line comes in COMP_LINE.
    """
    line = environment.get("COMP_LINE", "")
    words = re.split(r"\s+", line.lstrip())
    program, typed = words[0], words[1:]
    if len(typed) <= 1:
        return line, [stage for stage in STAGES if stage.startswith(typed[0] if typed else "")]
    last = typed[-1]
    given = [word for word in typed[1:-1] if "=" in word]
    return " ".join([program, *given, last]), []


def hydra_completion(flags: list[str]) -> None:
    """Lets Hydra install or answer tab completion; prints what it answers."""
    import sys

    import hydra

    if any("query=" in flag for flag in flags):
        os.environ["COMP_LINE"], stages = completion_line(os.environ)
        if stages:
            sys.stdout.write(" ".join(stages) + "\n")
            return
    sys.argv = [sys.argv[0], *flags]
    from sweep import config  # noqa: F401 - registers the schema

    hydra.main(version_base="1.3", config_path="conf", config_name="config")(lambda _: None)()
