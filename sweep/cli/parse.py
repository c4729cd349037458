"""argv to (stage, name, overrides), the help texts, and tab completion: what stands before Hydra's overrides."""

import difflib
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
        "Checks space, data and storage, trains two iterations of the cheapest and the dearest configuration, and\n"
        "prints trials x epochs x cost. Writes nothing.",
    ),
    "doctor": Stage(
        "checks this machine, or the cluster, for what a sweep would stumble over",
        "sweep doctor [KEY=VALUE ...]",
        (0, 0),
        "Packages, CPUs, GPUs, data, disk, MLflow server, and Ray as a sweep starts or joins it; 1 if a check failed.\n"
        "  data=cifar10 runtime.data_dir=DIR tracking.uri=http://HOST:5000 cluster=address cluster.address=auto",
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
    "resume": Stage(
        "goes on with what was cut short",
        "sweep resume NAME [KEY=VALUE ...]",
        (1, 1),
        "After Ctrl-C, a killed driver, a reboot or a full disk: trials go on from their checkpoints, and nothing\n"
        "is lost or run twice. NAME is a sweep or a study whose search, final training or evaluation was cut short.\n"
        "  search.accept_changes=true         although space, code or data have changed since\n"
        "  search.budget.hours=12             a larger budget",
    ),
    "extend": Stage(
        "adds trials to a finished search",
        "sweep extend NAME search.more=N [KEY=VALUE ...]",
        (1, 1),
        "The sampler goes on with what it knows, schedulers with the rungs that are filled.",
    ),
    "status": Stage(
        "table of sweeps or of one sweep's trials",
        "sweep status [NAME] [--verify] [runtime.runs_dir=DIR]",
        (0, 1),
        "Outcomes, reasons, cost so far and best so far, also while the sweep runs.\n"
        "  --verify   whether trials.csv, Ray, the Optuna study and MLflow agree on every trial; 1 if they do not",
    ),
    "final": Stage(
        "confirms the best trials over seeds, retrains the crowned one",
        "sweep final NAME|path/to/best.yaml [KEY=VALUE ...]",
        (1, 1),
        "Retrains the top configurations on train over seeds, crowns the best mean, retrains it on train+val over\n"
        "fresh seeds, registers the first of these as champion. A best.yaml is retrained in a new run directory.\n"
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
    "replay": Stage(
        "a finished search under another sampler or scheduler, on its recorded curves",
        "sweep replay NAME [KEY=VALUE ...]",
        (1, 1),
        "Trains nothing, writes nothing. Trials whose whole curve is recorded are searched again in simulated time.\n"
        "  search.sampler=tpe search.scheduler=asha search.reduction=4\n"
        "  replay.workers=8 replay.repeats=10",
    ),
    "ui": Stage(
        "MLflow's page and Optuna's dashboard on loopback",
        "sweep ui NAME [tracking.port=5000]",
        (1, 1),
        "Serves until Ctrl-C.",
    ),
}

VERIFY = "--verify"
COMPLETION = ("-sc", "--shell-completion", "--shell_completion")


@dataclass(frozen=True, slots=True)
class Command:
    """A command line taken apart. `flags` are --help, --cfg job, or --verify, or what follows -sc."""

    stage: str
    names: list[str]
    overrides: list[str]
    flags: list[str]


def parse(argv: list[str]) -> Command:
    """Raises InputError: an unknown stage or flag, a missing or superfluous name."""
    if not argv or argv[0] in {"-h", "--help"}:
        return Command("", [], [], ["--help"])
    if argv[0] in COMPLETION:
        return Command("", [], [], argv[1:])
    stage, *rest = argv
    if stage not in STAGES:
        near = difflib.get_close_matches(stage, STAGES, n=1)
        meant = f"did you mean {near[0]}? " if near else ""
        raise InputError(f"There is no stage {stage!r}; {meant}Stages are {', '.join(STAGES)}.")
    names, overrides, flags = _sort(rest)
    if VERIFY in flags and stage != "status":
        raise InputError(f"{VERIFY} belongs to `sweep status NAME`, not to `sweep {stage}`.")
    if not flags or VERIFY in flags:
        _check_names(stage, names, least=1 if VERIFY in flags else None)
        _check_more(stage, overrides)
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
        elif word == VERIFY:
            flags.append(VERIFY)
        elif word.startswith("-"):
            raise InputError(f"There is no option {word}; --help and --cfg job are possible.")
        elif "=" in word or word.startswith(("+", "~")):
            overrides.append(word)
        else:
            names.append(word)
    return names, overrides, flags


def _check_names(stage: str, names: list[str], least: int | None = None) -> None:
    fewest, most = STAGES[stage].names
    if len(names) < (fewest if least is None else least):
        raise InputError(f"`sweep {stage}` needs a name: {STAGES[stage].usage}")
    if len(names) > most:
        raise InputError(f"{names[most]!r} is one name too many, or lacks its `=`: {STAGES[stage].usage}")


def _check_more(stage: str, overrides: list[str]) -> None:
    more = [text for text in overrides if text.lstrip("+").startswith("search.more=")]
    if more and stage != "extend":
        raise InputError(
            f"{more[0]} is for `sweep extend NAME`, which adds trials to a finished search; search.trials is how many "
            "a new one has."
        )


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
