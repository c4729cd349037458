"""What is written of a sweep as it runs: killed at any line, it is taken up as if nothing had happened."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweep.cluster.placement import Placement
from sweep.config.overrides import override
from sweep.config.search_config import Objective
from sweep.errors import InputError
from sweep.execution import trial_log
from sweep.execution.list_source import Ended, Job, ListSource
from sweep.execution.mlflow_runs import curve_metrics
from sweep.execution.observers import Observer
from sweep.execution.session import Session
from sweep.execution.trial_log import objective_value
from sweep.records import tables
from sweep.records.outcome import STATES, Outcome
from sweep.records.rows import METRICS, CurveRow, ManifestationRow, Phase, TrialRow
from sweep.records.run_directory import JOURNAL, SweepFiles
from sweep.records.tables import read_rows
from sweep.tracking import outbox
from sweep.tuning import optuna_study
from sweep.tuning.optuna_study import open_study
from sweep.worker.segment import EpochResult, Segment
from tests.sweep.pretended import (
    TABLES,
    Killed,
    Sweep,
    Worker,
    begun,
    configured,
    curves_of,
    ended,
    opened,
    outcomes,
    reported,
)
from tests.sweep.sweep_files import session_on, trial

HALVING = ("search.grace=0.34", "search.reduction=2", "training.epochs=4")
SWEEPS: dict[str, tuple[str, ...]] = {
    "none": ("search.trials=2",),
    "asha": ("search.trials=3", "search.scheduler=asha", *HALVING),
    "random share": ("search.trials=2", "search.scheduler=asha", "search.random_share=0.5", *HALVING),
    "depth_asha": ("search.trials=3", "search.scheduler=depth_asha", *HALVING),
    "pbt": ("search.trials=2", "search.scheduler=pbt", "search.pbt.interval=0.5", "training.epochs=3"),
    "final": ("search.trials=1",),
}


def listed(session: Session) -> ListSource:
    """Two trials, of which the second changes its learning rate after an epoch, and one that follows the better."""
    experiment = session.config.experiment
    parts = [(0, experiment), (1, override(experiment, {"optim.lr": 0.01}))]
    jobs = [
        Job(number=number, phase=Phase.confirm, candidate=number, parameters={}, experiments=parts[: number + 1])
        for number in range(2)
    ]

    def follow_up(told: Ended) -> list[Job]:
        best = max(told.values(), key=lambda row: row.objective or 0.0).candidate
        return [Job(number=2, phase=Phase.final, candidate=best, parameters={}, experiments=parts[:1])]

    return ListSource(jobs, follow_up, 3, session.folders(session.files.final))


def taken_up(runs: Path, kind: str) -> Sweep:
    session = session_on(configured(*SWEEPS[kind], runs=runs))
    return opened(session, listed(session) if kind == "final" else None)


# --- a driver that dies -----------------------------------------------------------------------------------------------


def kill_at(patch: pytest.MonkeyPatch, line: int) -> Callable[[], int]:
    """The driver dies while it writes this line of any of its files, counted from 0. Returns the count of lines."""
    written = 0

    def append_line(path: Path, text: str, header: str = "") -> None:
        nonlocal written
        if written == line:
            with path.open("a") as file:
                file.write((header if not path.stat().st_size else "") + text[: len(text) // 2])
            raise Killed
        written += 1
        whole(path, text, header)

    whole = tables.append_line
    for module in (tables, optuna_study, outbox):
        patch.setattr(module, "append_line", append_line)
    return lambda: written


def told_of(sweep: Sweep) -> dict[str, list[Any]]:
    """Per run of MLflow: how it stands, and the steps of its metrics in the order in which they came."""
    runs: dict[str, list[Any]] = {}
    for line in sweep.lines():
        state = runs.setdefault(line["key"], ["", []])
        if line["op"] == "metrics":
            state[1].append(line["step"])
        elif line["op"] in {"start", "end"}:
            state[0] = line.get("status", "RUNNING")
    return runs


def what_came_of_it(sweep: Sweep) -> dict[str, Any]:
    """All that must be the same however often the driver died; ids are drawn anew, legs are one more."""
    files = sweep.log.files
    rows = [replace(row, trial_id="", legs=0) for row in sweep.log.in_order()]
    tables = read_rows(files.manifestations, ManifestationRow) if files.manifestations.exists() else []
    return {
        "rows": rows,
        "curves": sorted(map(repr, read_rows(files.curves, CurveRow))),
        "tables": sorted(map(repr, tables)),
        "MLflow": told_of(sweep),
        "Optuna": optuna_of(sweep),
    }


def optuna_of(sweep: Sweep) -> list[tuple[Any, ...]]:
    file = sweep.session.directory / JOURNAL
    if not file.exists():
        return []
    trials = open_study(file, "x", sweep.session.config.search.objectives).trials()
    return [(one.state.name, one.values, one.params, one.intermediate_values) for one in trials]


def names(sweep: Sweep) -> dict[int, str]:
    return {row.number: row.trial_id for row in sweep.log.in_order()}


def killed_at(runs: Path, kind: str, line: int) -> dict[int, str]:
    """Runs a sweep whose driver dies at a line; returns the ids of the trials that it had asked for."""
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, line)
        with pytest.raises(Killed):
            taken_up(runs, kind).drive()
    if kind == "final":
        ledger = runs / "x" / "final" / "ledger.csv"
        tables.cut_half_row(ledger)
        return {row.number: row.trial_id for row in read_rows(ledger, TrialRow)} if ledger.exists() else {}
    trials = open_study(runs / "x" / JOURNAL, "x", [Objective.accuracy]).trials()
    return {one.number: one.user_attrs["trial_id"] for one in trials}


@pytest.mark.slow
@pytest.mark.parametrize("kind", SWEEPS)
def test_a_driver_killed_at_any_line_leaves_a_sweep_that_ends_as_if_undisturbed(tmp_path, kind):
    with pytest.MonkeyPatch.context() as patch:
        count = kill_at(patch, -1)
        undisturbed = taken_up(tmp_path / "undisturbed", kind)
        undisturbed.drive()
        lines = count()
    expected = what_came_of_it(undisturbed)
    assert lines > 20
    for line in range(lines):
        runs = tmp_path / str(line)
        asked_before = killed_at(runs, kind, line)
        sweep = taken_up(runs, kind)
        sweep.drive()
        assert names(sweep).items() >= asked_before.items(), line
        assert what_came_of_it(sweep) == expected, line


# --- what is written --------------------------------------------------------------------------------------------------


def epoch_of(epoch: int) -> EpochResult:
    found = reported(epoch, 0.1).epoch
    assert found is not None
    return found


def first_leg(sweep: Sweep) -> Segment:
    segment = sweep.controller.next_segment()
    assert isinstance(segment, Segment)
    return segment


def test_epochs_that_come_again_after_a_lost_worker_are_written_once(tmp_path):
    sweep = begun(tmp_path)
    segment = first_leg(sweep)
    assert [sweep.log.epoch(segment, epoch_of(epoch)) for epoch in (1, 1, 2, 1, 2)] == [
        True,
        False,
        True,
        False,
        False,
    ]
    assert curves_of(sweep) == {0: [1, 2]}
    assert told_of(sweep)["x/search-0"] == ["RUNNING", [1, 2]]


def test_a_row_says_how_its_trial_stands_after_every_call(tmp_path):
    sweep = begun(tmp_path)
    segment = first_leg(sweep)
    sweep.controller.result(segment, reported(1, 0.3))
    row = sweep.log.rows[0]
    assert (row.outcome, row.epochs, row.objective, row.ray, row.legs) == (Outcome.running, 1, 0.3, "RUNNING", 1)
    assert (row.gflops, row.seconds, row.model_parameters, row.proposed_by) == (10.0, 1.0, 123, "random")
    sweep.controller.segment_ended(segment, ended(2, 0.4), "TERMINATED")
    row = sweep.log.rows[0]
    assert (row.outcome, row.reason, row.ray) == (Outcome.done, "", "TERMINATED")
    lines = read_rows(sweep.log.files.ledger, TrialRow)
    assert [line.outcome for line in lines] == [Outcome.running, Outcome.running, Outcome.done]
    assert lines[-1] == row


def test_a_trial_that_is_done_keeps_its_newest_checkpoint_and_any_other_ending_none(tmp_path):
    sweep = begun(tmp_path)
    for outcome, kept in ((Outcome.done, ["epoch-000002.ckpt"]), (Outcome.diverged, [])):
        segment = first_leg(sweep)
        folder = Path(segment.folder)
        folder.mkdir(parents=True)
        for epoch in (1, 2):
            (folder / f"epoch-00000{epoch}.ckpt").touch()
        last = ended(2, 0.4)
        assert last.ended is not None
        result = replace(last, ended=replace(last.ended, outcome=outcome))
        sweep.controller.result(segment, result)
        sweep.controller.segment_ended(segment, result, "TERMINATED")
        assert sorted(path.name for path in folder.glob("*")) == kept
        assert folder.exists() is bool(kept)


def test_what_a_network_costs_and_its_other_manifestations_are_kept_with_its_trial(tmp_path):
    limits = ("search.constraints.memory_mib=5", "search.constraints.latency_ms=1")
    several = "search.objectives=[accuracy,gflops,robustness]"
    sweep = begun(tmp_path, "search.trials=1", *limits, several)
    sweep.drive()
    row = sweep.log.rows[0]
    assert row.objectives == {"accuracy": row.objective, "gflops": 0.1, "robustness": 0.4}
    assert (row.constraints, row.feasible) == ({"memory_mib": 4.0, "latency_ms": 2.0}, False)
    tables = read_rows(sweep.log.files.manifestations, ManifestationRow)
    assert tables == [ManifestationRow(number=0, **table) for table in TABLES]


@pytest.mark.parametrize(("limit", "feasible"), [(4.0, True), (3.9, False)])
def test_a_trial_at_the_limit_is_within_it(tmp_path, limit, feasible):
    sweep = begun(tmp_path, "search.trials=1", f"search.constraints.memory_mib={limit}")
    sweep.drive()
    assert sweep.log.rows[0].feasible is feasible


class Reading(Observer):
    """Looks into the files whenever it is told something."""

    def __init__(self, files: SweepFiles) -> None:
        self.files, self.told = files, list[str]()

    def began(self, row: TrialRow, segment: Segment) -> None:
        self._in_ledger("began", row)

    def epoch(self, row: TrialRow, curve: CurveRow) -> None:
        self.told.append("epoch")
        assert read_rows(self.files.curves, CurveRow)[-1] == curve

    def stands(self, row: TrialRow, segment: Segment | None) -> None:
        self._in_ledger("stands", row)

    def cut_short(self, row: TrialRow) -> None:
        self._in_ledger("cut short", row)

    def _in_ledger(self, told: str, row: TrialRow) -> None:
        self.told.append(told)
        last = read_rows(self.files.ledger, TrialRow)[-1]
        assert (last.number, last.outcome, last.legs) == (row.number, row.outcome, row.legs)


def test_the_table_of_many_trials_is_rewritten_more_rarely_so_that_it_takes_little_of_the_drivers_time(
    tmp_path, monkeypatch
):
    now, written = 0.0, []
    sweep = begun(tmp_path, "search.trials=1", "training.epochs=100")
    monkeypatch.setattr(trial_log.time, "monotonic", lambda: now)

    def slowly(*_: Any) -> None:
        nonlocal now
        written.append(now)
        now += 0.8

    monkeypatch.setattr(trial_log, "write_rows", slowly)
    segment = sweep.controller.next_segment()
    assert isinstance(segment, Segment)
    written.clear()
    while now < 100:
        now += 1.0
        sweep.controller.result(segment, reported(int(now) % 100 + 1, 0.5))
    assert 0.8 * len(written) <= trial_log.WRITE_PART * 100 + 0.8


def test_observers_are_told_what_is_written_down_already(tmp_path):
    sweep = begun(tmp_path, "search.trials=2", "search.scheduler=depth_asha", *HALVING)
    reading = Reading(sweep.log.files)
    sweep.log.attach([reading])
    sweep.drive()
    assert set(reading.told) == {"began", "epoch", "stands"}
    sweep.log.rows[0] = replace(sweep.log.rows[0], outcome=Outcome.running)
    sweep.log.finish("the end")
    assert reading.told[-1] == "cut short"


@pytest.mark.parametrize(("objective", "value"), [("accuracy", 0.5), ("gflops", 0.1), ("rate_evaluations", 1.0)])
def test_each_objective_is_what_it_says(objective, value):
    last = ended(2, 0.5).ended
    assert last is not None
    assert objective_value(Objective[objective], trial(0, objective=0.5), last) == value


def with_half_a_gpu(runs: Path) -> Sweep:
    return opened(replace(session_on(configured(runs=runs)), placement=Placement({"CPU": 1.0, "GPU": 0.5})))


def test_gpu_time_is_what_a_trial_has_of_gpus_times_its_seconds_also_those_of_a_killed_driver(tmp_path):
    sweep = with_half_a_gpu(tmp_path)
    sweep.controller.result(first_leg(sweep), reported(1, 0.3, **{"cost/seconds": 8.0}))
    assert sweep.log.rows[0].gpu_seconds == 4.0
    again = with_half_a_gpu(tmp_path)
    assert again.log.rows[0].gpu_seconds == 4.0
    again.controller.result(first_leg(again), reported(2, 0.3, **{"cost/seconds": 10.0}))
    assert again.log.rows[0].gpu_seconds == 5.0


def test_trials_that_ran_when_their_driver_was_lost_are_interrupted_and_say_so(tmp_path):
    sweep = begun(tmp_path)
    sweep.controller.result(first_leg(sweep), reported(1, 0.3))
    (row,) = begun(tmp_path).log.in_order()
    assert (row.outcome, row.reason, row.epochs) == (Outcome.interrupted, "its driver was lost", 1)
    assert row.ray == STATES[Outcome.interrupted].ray
    assert told_of(sweep)["x/search-0"] == ["KILLED", [1]]


def test_what_still_runs_when_a_sweep_is_stopped_is_interrupted_for_the_given_reason(tmp_path):
    sweep = begun(tmp_path)
    sweep.run(first_leg(sweep), Worker())
    first_leg(sweep)
    assert sweep.controller.finish("the sweep was stopped") == 1
    assert outcomes(sweep) == [Outcome.done, Outcome.interrupted]
    assert [row.reason for row in read_rows(sweep.log.files.trials, TrialRow)] == ["", "the sweep was stopped"]
    assert [told_of(sweep)[f"x/search-{number}"][0] for number in range(2)] == ["FINISHED", "KILLED"]


@pytest.mark.parametrize("name", ["ledger.csv", "curves.csv", "manifestations.csv"])
def test_a_damaged_table_is_refused_by_name_and_a_half_row_is_cut_off(tmp_path, name):
    sweep = begun(tmp_path, "search.trials=1")
    sweep.drive()
    file = tmp_path / "x" / name
    whole = file.read_bytes()
    file.write_bytes(whole + b"2,x,half")
    begun(tmp_path, "search.trials=1")
    assert file.read_bytes() == whole
    file.write_bytes(whole + b"2,x\n")
    with pytest.raises(InputError, match=f"{name}, line .*cells where"):
        begun(tmp_path, "search.trials=1")


def test_every_metric_of_an_epoch_comes_back_from_its_curve(tmp_path):
    sweep = begun(tmp_path)
    sweep.controller.result(first_leg(sweep), result := reported(1, 0.3, **{"gradient/drift": 0.5}))
    (curve,) = read_rows(sweep.log.files.curves, CurveRow)
    assert result.epoch is not None
    assert curve_metrics(curve) == {name: result.epoch.metrics[name] for name in METRICS}
