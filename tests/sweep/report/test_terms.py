"""What a report says of the terms of a comparison: protocol, deviations, costs of the selected networks by draw."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweep.errors import InputError
from sweep.records.protocol import read_protocol, record_deviation
from sweep.records.rows import CLEAN, EvaluationRow, Phase, TrialRow
from sweep.records.run_directory import PROTOCOL, STUDY, SweepFiles
from sweep.records.tables import read_rows, write_rows
from sweep.report.load import load_sweeps
from sweep.report.page import sections
from sweep.report.results import Study, build_study
from sweep.report.terms import protocol, selected
from sweep.stages.status import _tested
from tests.sweep.study.study_files import searched_study


def retrained(files: SweepFiles, parameters: int) -> None:
    """Write what final training and evaluation leave."""
    row = read_rows(files.trials, TrialRow)[0]
    rows = [
        replace(row, phase=Phase.final, number=number, seed=number, objective=None, model_parameters=parameters,
                config_hash=f"c{number}", epochs=4, gflops=8.0, seconds=2.0)
        for number in (0, 1)
    ]  # fmt: skip
    files.final.directory.mkdir()
    write_rows(files.final.trials, TrialRow, rows)
    shutil.copy(files.best, files.crowned)
    accuracies = [
        EvaluationRow(
            family=one.family, dataset=one.dataset, per_class=one.per_class, draw=one.draw, seed=one.seed,
            scheme="euler", steps=4, condition=CLEAN, severity=0.0, split="test", metric="accuracy", value=0.5, n=596,
            trained_scheme="euler", trained_steps=4, config_hash=one.config_hash,
            data_hash=one.data_hash,
        )
        for one in rows
    ]  # fmt: skip
    losses = [replace(one, metric="loss", value=1.5) for one in accuracies]
    write_rows(files.rows, EvaluationRow, [*accuracies, *losses])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("finished")
    searched_study(runs)
    for file in sorted((runs / "tiny").glob("*/trials.csv")):
        retrained(SweepFiles(file.parent), 1000 if file.parent.name.startswith("resnet") else 1080)
    return runs


@pytest.fixture
def tiny(finished: Path, tmp_path: Path) -> Path:
    """A copy of the directory of the study."""
    return Path(shutil.copytree(finished / "tiny", tmp_path / "tiny"))


def read(directory: Path) -> Study:
    return build_study(*load_sweeps(sorted(path.parent for path in directory.glob("*/trials.csv"))), directory)


def changed(file: Path, section: str, **values: Any) -> None:
    content = yaml.safe_load(file.read_text())
    content[section] |= values
    file.write_text(yaml.safe_dump(content))


def test_a_report_shows_the_protocol_and_what_was_recorded_as_done_otherwise(tiny: Path) -> None:
    frozen = read_protocol(tiny)
    assert frozen is not None
    facts, told = protocol.blocks(read(tiny).sweeps)
    assert facts.title.startswith(f"Protocol {frozen.hash} of tiny, frozen 20")  # type: ignore[union-attr]
    items = dict(facts.items)  # type: ignore[union-attr]
    assert (items["arm"], items["families"], items["sizes"], items["draws"]) == (
        "equal epochs", "resnet, continuous", "5", "0, 1",
    )  # fmt: skip
    assert "meaningful 0.75" in items["rules"]
    assert "Nothing was done otherwise" in told.text  # type: ignore[union-attr]
    assert protocol.notices(read(tiny).sweeps) == []
    record_deviation(frozen, "tiny/resnet-d0", "final training done again; the former is in final~1")
    record_deviation(frozen, "tiny/continuous-d0", "final training done again; the former is in final~1")
    (_, table) = protocol.blocks(read(tiny).sweeps)
    (row,) = table.rows  # type: ignore[union-attr]
    assert row[1:] == ["resnet-d0 and continuous-d0", "final training done again; the former is in final~1"]
    shown = {section.anchor: section for section in sections(read(tiny))}
    assert [block.kind for block in shown["terms"].blocks] == ["facts", "table", "notice", "table"]


def test_a_sweep_that_departs_from_the_protocol_is_marked_with_what_differs(tiny: Path) -> None:
    config, rows = tiny / "resnet-d0/config.yaml", read_rows(tiny / "continuous-d1/trials.csv", TrialRow)
    changed(config, "training", epochs=9)
    changed(config, "search", sampler="tpe")
    write_rows(tiny / "continuous-d1/trials.csv", TrialRow, [replace(rows[0], data_hash="other")])
    shutil.copy(tiny / "continuous-d0/origin.json", tiny / "resnet-d1/origin.json")
    shutil.rmtree(tiny / "continuous-d0")
    told = "\n".join(protocol.notices(read(tiny).sweeps))
    for said in (
        "tiny/resnet-d0 departs from the protocol: training.epochs is 9, and the protocol has 4.",
        "tiny/resnet-d0 departs from the protocol: search.sampler is tpe, and the protocol has random.",
        "tiny/continuous-d1 departs from the protocol: it has 1 search trial, and the protocol has 2.",
        "tiny/continuous-d1 departs from the protocol: its trials had images of the hash other",
        "tiny/resnet-d1 departs from the protocol: its space is another",
        "Planned and not in this report: continuous-d0.",
    ):
        assert said in told


def test_an_edited_protocol_is_refused_and_a_study_of_before_is_marked(tiny: Path) -> None:
    study = read(tiny)
    changed(tiny / PROTOCOL, "protocol", terms={"draws": [0]})
    with pytest.raises(InputError, match=r"protocol\.yaml was changed after the study began"):
        protocol.notices(study.sweeps)
    (tiny / PROTOCOL).unlink()
    content = yaml.safe_load((tiny / STUDY).read_text())
    (tiny / STUDY).write_text(yaml.safe_dump(content | {"study": {"draws": [0, 1]}}))
    assert protocol.notices(study.sweeps) == ["tiny has no protocol: it was begun by a version that froze none."]
    assert protocol.blocks(study.sweeps) == []


def test_the_selected_networks_stand_by_draw_with_their_costs_and_unequal_parameters_are_marked(tiny: Path) -> None:
    (results,) = read(tiny).tasks
    table = selected.table(results)
    assert table is not None
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert [(row["draw"], row["family"], row["parameters"], row["of baseline"]) for row in rows] == [
        ("0", "resnet", "1,000", "1.00"), ("0", "continuous", "1,080", "1.08"),
        ("1", "resnet", "1,000", "1.00"), ("1", "continuous", "1,080", "1.08"),
    ]  # fmt: skip
    costs = ("test accuracy", "sd", "n", "epochs", "GFLOP, training", "seconds, training", "rate evaluations, forward")
    assert {tuple(row[name] for name in costs) for row in rows} == {("50.0", "0.0", "2", "4", "8", "2", "1")}
    assert selected.unequal_parameters(results) == ["continuous in draw 0: 1.08", "continuous in draw 1: 1.08"]


def test_results_of_other_networks_than_those_beside_them_are_marked(tiny: Path) -> None:
    files = SweepFiles(tiny / "resnet-d0")
    assert _tested(files) == "yes"
    rows = read_rows(files.final.trials, TrialRow)
    write_rows(files.final.trials, TrialRow, [rows[0], replace(rows[1], config_hash="new")])
    assert _tested(files) == "stale"
    study = read(tiny)
    (told,) = protocol.notices(study.sweeps)
    assert "resnet-d0/rows.csv has 2 values of other networks than those in folder final (seeds 1), which are" in told
    assert "Move rows.csv and predictions.npz away, and `sweep evaluate tiny/resnet-d0` measures" in told
    assert [(run.draw, run.seed) for run in study.tasks[0].baseline.runs] == [(0, 0), (1, 0), (1, 1)]


@pytest.mark.parametrize("metric", ["accuracy", "loss"])
def test_half_a_result_is_in_no_figure_and_how_to_mend_it_is_said(tiny: Path, metric: str) -> None:
    files = SweepFiles(tiny / "resnet-d0")
    rows = read_rows(files.rows, EvaluationRow)
    write_rows(files.rows, EvaluationRow, [row for row in rows if (row.seed, row.metric) != (0, metric)])
    assert _tested(files) == "partly"
    study = read(tiny)
    (told,) = protocol.notices(study.sweeps)
    assert "only a part of clean of seed 0, which is in no figure: `sweep evaluate tiny/resnet-d0`" in told
    assert [(run.draw, run.seed) for run in study.tasks[0].baseline.runs] == [(0, 1), (1, 0), (1, 1)]


def test_a_trial_that_is_there_twice_is_refused(tiny: Path) -> None:
    file = tiny / "resnet-d0/final/trials.csv"
    rows = read_rows(file, TrialRow)
    write_rows(file, TrialRow, [*rows, rows[0]])
    with pytest.raises(InputError, match="trial 0 is there twice"):
        read(tiny)
