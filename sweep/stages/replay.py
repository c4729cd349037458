"""`sweep replay NAME`: repeat a finished search under another sampler or scheduler, on recorded curves, without
training."""

from collections import Counter
from collections.abc import Callable, Sequence
from statistics import mean

from rich.console import Console
from rich.table import Table

from odenet.data.sets import SETS
from sweep.config.compose import load
from sweep.config.own import named
from sweep.config.schema import AppConfig
from sweep.config.search_config import SchedulerKind, SearchConfig
from sweep.config.study_config import Arm
from sweep.errors import InputError
from sweep.execution.simulator import CLOSE, Recording, Tally, as_it_was, replayed
from sweep.records.outcome import Outcome
from sweep.records.progress import SweepProgress
from sweep.records.rows import CurveRow, TrialRow
from sweep.records.run_directory import SweepFiles
from sweep.records.tables import read_rows
from sweep.tuning.problem import build_problem
from sweep.tuning.schedulers import refinement_epochs

METHOD = (
    "Each proposal gets the nearest recorded configuration that is left (Gower's distance over the space), and its "
    "sampler learns that one's objective as its own. Seconds are of training alone."
)


def replay(config: AppConfig, recording: Recording, name: str, console: Console) -> None:
    """Print the search as it was beside its replays; write nothing."""
    workers, repeats = config.replay.workers, config.replay.repeats
    tallies = replayed(recording, config.search, workers, repeats)
    console.print(
        _table(f"{name}, replay.workers={workers}", as_it_was(recording, workers), tallies, config, recording)
    )
    for line in (*_left_out(recording, config.search), METHOD):
        console.print(line, highlight=False)


def prepare_replay(config: AppConfig, files: SweepFiles) -> Recording:
    """Read what the search in this run directory left, to be searched as `config` says.

    Raises:
        InputError: as `read_recording`, or the curves say nothing of what is asked.
    """
    recording = read_recording(files, config.modules)
    check_replay(config, recording)
    return recording


def read_recording(files: SweepFiles, modules: Sequence[str] = ()) -> Recording:
    """Read the recording of the search in this run directory. `modules`: the user's own that were named.

    Raises:
        InputError: it has not ended, a file is damaged, or no trial can be replayed.
    """
    name = files.directory.name
    if files.study.exists():
        raise InputError(f"{name} is a study: replay one of its sweeps, {name}/FAMILY-dDRAW.")
    if not files.trials.exists() or not files.curves.exists():
        raise InputError(f"{files.directory} has no learning curves to replay; run `sweep search` first.")
    if not SweepProgress.read(files.progress).finished:
        raise InputError(f"The search of {name} has not ended: `sweep status {name}`, `sweep resume {name}`.")
    config = load(named(modules), files.config)
    if config.search.scheduler is SchedulerKind.pbt:
        raise InputError(
            f"{name} was searched with search.scheduler=pbt: its members changed while they were trained, so that no "
            "curve is of one configuration; replay another sweep."
        )
    if config.study.arm is Arm.equal_compute:
        raise InputError(
            f"{name} is of a study with study.arm=equal_compute: its trials have epochs of their own, and schedulers "
            "compare trials at equal ones; replay another sweep."
        )
    try:
        problem = build_problem(config)
    except ValueError as error:
        raise InputError(str(error)) from error
    rows = read_rows(files.trials, TrialRow)
    classes = next((row.classes for row in rows), None) or SETS[config.data.dataset].classes
    recording = Recording(
        space=problem.space,
        experiment=problem.experiment,
        search=config.search,
        chance=1 / classes if classes else 0.0,
        rows=rows,
        curves=read_rows(files.curves, CurveRow),
    )
    if not recording.trials:
        raise InputError(f"None of the {len(recording.rows)} trials of {name} has a whole curve to replay.")
    return recording


def check_replay(config: AppConfig, recording: Recording) -> None:
    """Raise InputError where the curves say nothing of what is asked, or it could not be searched at all."""
    kind = config.search.scheduler
    if kind is SchedulerKind.pbt:
        raise InputError(
            "search.scheduler=pbt cannot be replayed: no curve was recorded of members that copy each other; use none, "
            "asha, hyperband or median."
        )
    try:
        build_problem(config)
        epochs = config.training.epochs
        refined, asked = (refinement_epochs(one, epochs) for one in (recording.search, config.search))
    except ValueError as error:
        raise InputError(str(error)) from error
    if refined != asked:
        raise InputError(
            f"search.scheduler={kind.value} cannot be replayed: it refines networks {_after(asked)}, the recorded "
            f"ones ({recording.search.scheduler.value}) were refined {_after(refined)}, and curves of other depths are "
            "others. Leave out search.scheduler, search.grace and search.reduction, or replay another sweep."
        )


def _after(epochs: list[int]) -> str:
    return f"after the epochs {', '.join(map(str, epochs))}" if epochs else "at no rung"


def _left_out(recording: Recording, search: SearchConfig) -> list[str]:
    found, total = len(recording.trials), len(recording.rows)
    lines = []
    if found < total:
        outcomes = Counter(row.outcome for row in recording.rows)
        outcomes.subtract(one.row.outcome for one in recording.trials)
        missing = ", ".join(f"{count} {outcome.value}" for outcome, count in outcomes.items() if count)
        lines.append(
            f"Replayed are {found} of {total} trials. Left out, for want of a whole curve, are {missing}: where a "
            "scheduler chose, the others are better than all were."
        )
    if search.trials > found:
        lines.append(f"search.trials={search.trials} counts as {found}: no more can be replayed.")
    return lines


# name, its value, how it is written; None: there is none
Statistic = tuple[str, Callable[[Tally], float | None], Callable[[float], str]]


def _lines(tallies: Sequence[Tally]) -> list[Statistic]:
    present = [outcome for outcome in Outcome if any(tally.outcomes[outcome] for tally in tallies)]
    return [
        ("trials begun", lambda tally: tally.trials, _count),
        *((f"  {outcome.value}", lambda tally, of=outcome: tally.outcomes[of], _count) for outcome in present),
        ("epochs", lambda tally: tally.epochs, _count),
        ("GFLOP", lambda tally: tally.gflops, _gflops),
        ("wall clock, s", lambda tally: tally.seconds, lambda value: f"{value:,.1f}"),
        ("best objective, 1 seed", lambda tally: tally.best, lambda value: f"{value:.2%}"),
        (
            f"GFLOP until within {100 * CLOSE:.0f} point of the best recorded",
            lambda tally: tally.gflops_to_best,
            _gflops,
        ),
    ]


def _count(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) else f"{value:,.1f}"


def _gflops(value: float) -> str:
    return f"{value:,.4g}" if value < 1e4 else f"{value:,.0f}"


def _table(title: str, was: Tally, tallies: list[Tally], config: AppConfig, recording: Recording) -> Table:
    table = Table(title=title)
    before, now = (f"{one.sampler.value}, {one.scheduler.value}" for one in (recording.search, config.search))
    table.add_column("")
    table.add_column(f"as it was\n{before}", justify="right")
    table.add_column(f"replayed: mean of n = {len(tallies)} (min to max)\n{now}", justify="right")
    for name, value, written in _lines([was, *tallies]):
        table.add_row(name, _summary([value(was)], written), _summary([value(tally) for tally in tallies], written))
    return table


def _summary(values: Sequence[float | None], written: Callable[[float], str]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "never"
    text, low, high = map(written, (mean(known), min(known), max(known)))
    if low != high:
        text += f" ({low} to {high})"
    return text if len(known) == len(values) else f"{text}, {len(known)} of {len(values)}"
