"""Run a stage that trains nothing: it prints, reports, replays or shows. Libraries are loaded as in `run_stages`."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from sweep.cli.command_line import FIGURES, TRIAL, VERIFY, Command
from sweep.cli.run_jobs import is_remote, remote_status

if TYPE_CHECKING:
    from sweep.stages.listing import View


def print_config(command: Command, console: Console) -> None:
    """Print the composed configuration, for `--cfg job`."""
    from sweep.config.compose import composed_text, is_study

    study = command.stage == "study" or (command.stage == "plan" and is_study(command.overrides))
    console.print(composed_text(command.overrides, study), highlight=False)


def run_doctor(command: Command, console: Console) -> None:
    from sweep.config.compose import load

    config = load(command.overrides)
    from sweep.stages.doctor import doctor

    doctor(config, console, _view(command))


def run_report(command: Command, console: Console) -> None:
    from sweep.cli.existing import shown, sweeps_of
    from sweep.config.compose import load
    from sweep.records.run_directory import REPORT, run_directory

    config = load(command.overrides)
    runs = Path(config.runtime.runs_dir).resolve()
    directories = [path for name in command.names for path in sweeps_of(runs, run_directory(config, name))]
    first, *others = command.names
    output = runs / f"report-{'-'.join(command.names).replace('/', '.')}.html" if others else runs / first / REPORT
    from sweep.report.page import write_report

    report = write_report(directories, output, " and ".join(command.names))
    console.print(f"Open the report: {shown(report)}", highlight=False)
    if FIGURES in command.flags:
        from sweep.report.paper import write_figures

        figures = Path(command.flags[command.flags.index(FIGURES) + 1])
        written = write_figures(directories, figures)
        console.print(f"Figures and tables: {len(written)} files in {shown(figures)}", highlight=False)
    if not others:
        from sweep.stages.deliver import attach_report

        attach_report(config, first, report, console)


def _view(command: Command) -> "View":
    from sweep.stages.listing import View

    return next((one for one in View if one.value in command.flags), View.window)


def run_status(command: Command, console: Console) -> None:
    if is_remote(command):
        remote_status(command, console)
        return
    from sweep.cli.existing import existing, sweeps_of
    from sweep.config.compose import load
    from sweep.records.run_directory import SweepFiles, check_name, run_directory, store_directory
    from sweep.stages.status import show_trial, status

    config = load(command.overrides)
    view = _view(command)
    name = check_name(command.names[0]) if command.names else None
    runs = Path(config.runtime.runs_dir).resolve()
    if TRIAL in command.flags:
        show_trial(runs, name or "", int(command.flags[command.flags.index(TRIAL) + 1]), console, view)
        return
    status(runs, name, console, view)
    if name is not None and VERIFY in command.flags:
        from sweep.stages.verify import Store, print_differences

        config = existing(command)[0] if SweepFiles(runs / name).config.exists() else config
        store = Store(store_directory(config, name), config.tracking.uri)
        print_differences(sweeps_of(runs, run_directory(config, name)), store, console)


def run_replay(command: Command, console: Console) -> None:
    from sweep.cli.existing import existing
    from sweep.config.compose import REPLAYED
    from sweep.records.run_directory import SweepFiles, run_directory

    config, name = existing(command, REPLAYED)
    from sweep.stages.replay import prepare_replay, replay

    recording = prepare_replay(config, SweepFiles(run_directory(config, name)))
    replay(config, recording, name, console)


def run_ui(command: Command, console: Console) -> None:
    from sweep.cli.existing import existing
    from sweep.config.compose import load
    from sweep.records.run_directory import SweepFiles, run_directory, store_directory
    from sweep.stages.ui import ui

    config, name = load(command.overrides), command.names[0]
    files = SweepFiles(run_directory(config, name))
    if files.config.is_file() or files.study.is_file():
        config = existing(command)[0]  # which says where it is tracked
    ui(store_directory(config, name), files.directory, config.tracking, console)
