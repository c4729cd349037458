"""Parse argv into stage, names, overrides and flags, and write the help texts."""

import difflib
from dataclasses import replace

from sweep.cli.command_line import (
    AGAIN,
    CONFIG_FILE,
    CSV,
    FIGURES,
    FOLLOW,
    JOB_SERVER,
    JSON,
    OWN_KEYS,
    SUBMIT,
    TRIAL,
    VERIFY,
    VERSION,
    WIDE,
    Command,
    with_config_file,
)
from sweep.cli.commands import STAGES
from sweep.errors import InputError

COMPLETION = ("-sc", "--shell-completion", "--shell_completion")
OF_STAGE = {  # flags, and the stages that have them
    **dict.fromkeys((VERIFY, CSV, TRIAL), ("status",)),
    **dict.fromkeys((WIDE, JSON), ("status", "doctor")),
    AGAIN: ("final", "extend"),
    FIGURES: ("report",),
    FOLLOW: ("logs",),
}
VALUED = {  # a flag that is followed by a value, and how that is said
    FIGURES: f"a directory: sweep report NAME {FIGURES} DIR",
    TRIAL: f"a number: sweep status NAME {TRIAL} 7",
}
ON_A_SERVER = (SUBMIT, "status", "logs", "stop", "resume")  # stages that ask a job server
# What can be set for stages that only read, and how it is shown: any other key would have no effect.
EVERYWHERE = {"runtime.runs_dir=": "runtime.runs_dir=DIR", "modules=": "modules=[NAME]"}
REMOTE = {JOB_SERVER: f"{JOB_SERVER}http://HEAD:8265", "cluster.unauthenticated=": "cluster.unauthenticated=true"}
USED = {
    "status": EVERYWHERE | REMOTE | {"tracking.": "tracking.*"},
    "logs": REMOTE,
    "stop": REMOTE,
    "report": EVERYWHERE,
    "ui": EVERYWHERE | {"tracking.": "tracking.*"},
}


def parse(argv: list[str]) -> Command:
    """Parse a command line. InputError: an unknown stage or flag, a missing or superfluous name."""
    if argv[:1] == ["help"]:
        argv = [*argv[1:], "--help"]
    if not argv or argv[0] in {"-h", "--help"}:
        return Command("", [], [], ["--help"])
    if argv[0] == VERSION:
        return Command("", [], [], [VERSION])
    if argv[0] in COMPLETION:
        return Command("", [], [], argv[1:])
    stage, *rest = argv
    if stage == SUBMIT and rest and not rest[0].startswith("-"):
        submitted = _parsed(*rest)
        return replace(submitted, stage=SUBMIT, names=[submitted.stage, *submitted.names])
    command = _parsed(stage, *rest)
    server = next((text for text in command.overrides if text.startswith(JOB_SERVER)), None)
    if server and stage not in ON_A_SERVER:
        raise InputError(
            f"{server} is for `sweep submit {stage} NAME`, and for {', '.join(ON_A_SERVER)}, not for `sweep {stage}`."
        )
    return command


def _parsed(stage: str, *rest: str) -> Command:
    if stage not in STAGES:
        near = difflib.get_close_matches(stage, STAGES, n=1)
        meant = f"did you mean {near[0]}? " if near else ""
        raise InputError(f"There is no stage {stage!r}; {meant}Stages are {', '.join(STAGES)}.")
    names, overrides, flags = _sort(list(rest))
    if stage in OWN_KEYS:
        overrides = [f"{stage}.{text}" if text.startswith(f"{OWN_KEYS[stage]}=") else text for text in overrides]
    for flag, those in OF_STAGE.items():
        if flag in flags and stage not in those:
            having = " and ".join(f"`sweep {one} NAME`" for one in those)
            raise InputError(f"{flag} belongs to {having}, not to `sweep {stage}`.")
    forms = [flag for flag in flags if flag in (WIDE, CSV, JSON)]
    if len(forms) > 1 or (VERIFY in flags and forms):
        raise InputError(f"{' '.join(flags)}: one of {VERIFY}, {WIDE}, {CSV} and {JSON} at a time.")
    if not flags or OF_STAGE.keys() & set(flags):
        _check_names(stage, names, least=1 if {VERIFY, TRIAL} & set(flags) else None)
        _check_more(stage, overrides)
        _check_used(stage, overrides)
    return Command(stage, names, overrides, flags)


def _sort(words: list[str]) -> tuple[list[str], list[str], list[str]]:
    """Sort words into names, overrides and flags; `--cfg job`, `--figures DIR` and `--trial N` are two words."""
    names, overrides, flags = [], [], []
    words = with_config_file(words)
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
        elif word.partition("=")[0] in VALUED:
            flags += _with_value(word, words)
        elif word in OF_STAGE:
            flags.append(word)
        elif word in CONFIG_FILE:
            raise InputError(f"{word} needs a value: --config-dir DIR --config-name NAME.")
        elif word.startswith(tuple(CONFIG_FILE)):
            overrides.append(word)
        elif word.startswith("-"):
            raise InputError(
                f"There is no option {word}; --help, --cfg job, --config-dir DIR and --config-name NAME are possible."
            )
        elif "=" in word or word.startswith(("+", "~")):
            overrides.append(word)
        else:
            names.append(word)
    return names, overrides, flags


def _with_value(word: str, words: list[str]) -> list[str]:
    """Return a flag and its value, which is in the same word or taken from the next one."""
    flag, _, value = word.partition("=")
    value = value or (words.pop(0) if words else "")
    if not value or value.startswith("-") or (flag == TRIAL and not value.isdecimal()):
        raise InputError(f"{flag} needs {VALUED[flag]}.")
    return [flag, value]


def _check_names(stage: str, names: list[str], least: int | None = None) -> None:
    fewest, most = STAGES[stage].names
    if len(names) < (fewest if least is None else least):
        raise InputError(f"`sweep {stage}` needs a name: {STAGES[stage].usage}")
    if len(names) > most:
        raise InputError(f"{names[most]!r} is one name too many, or lacks its `=`: {STAGES[stage].usage}")


def _check_used(stage: str, overrides: list[str]) -> None:
    used = USED.get(stage, {"": ""})
    for text in overrides:
        if not text.lstrip("+~").startswith((*used, *CONFIG_FILE)):
            raise InputError(
                f"{text} would have no effect on `sweep {stage}`; possible are {', '.join(used.values())}."
            )


def _check_more(stage: str, overrides: list[str]) -> None:
    more = [text for text in overrides if text.lstrip("+").startswith("search.more=")]
    if more and stage != "extend":
        raise InputError(
            f"{more[0]} is for `sweep extend NAME`, which adds trials to a finished search; search.trials is how many "
            "a new one has."
        )


def help_text(stage: str) -> str:
    """Write the help for one stage, or for all where `stage` is empty."""
    if stage:
        one = STAGES[stage]
        return (
            f"usage: {one.usage}\n\n{one.summary}\n\n{one.details}\n\n"
            "Any key can be set by KEY=VALUE; --cfg job prints all of them with their values.\n"
            "--config-dir DIR --config-name NAME reads DIR/NAME.yaml, a configuration of your own."
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
            "`sweep help STAGE` explains a stage, `sweep STAGE --cfg job` prints its configuration.",
            "`sweep --version` prints the version.",
            'Tab completion: eval "$(sweep -sc install=bash)"',
        ]
    )
