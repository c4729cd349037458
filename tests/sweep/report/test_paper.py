"""Figures and tables for a paper, read back from the files."""

import csv
import re
from dataclasses import replace

import pytest

from sweep.cli.parse import parse
from sweep.records.rows import EvaluationRow, TrialRow
from sweep.records.tables import read_rows, write_rows
from sweep.report.paper import latex, write_figures
from tests.sweep.report.test_report import study


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    found = study(tmp_path_factory.mktemp("runs"), [0.05, 0.06, 0.07, 0.05, 0.06], draws=5, families=("resnet", "a_$b"))
    for directory in found:
        rows = [replace(row, proposed_by="random") for row in read_rows(directory / "trials.csv", TrialRow)]
        rows = [replace(row, outcome=rows[0].outcome, objective=row.objective or 0.3) for row in rows]
        write_rows(directory / "trials.csv", TrialRow, [*rows, *(replace(row, number=6 + row.number) for row in rows)])
    return found


def test_figures_are_vectors_with_every_run_a_dot_and_tables_are_csv_and_latex(directories, tmp_path):
    written = write_figures(directories, tmp_path / "deep" / "figures")
    names = {path.name for path in written}
    assert names == {path.name for path in (tmp_path / "deep" / "figures").iterdir()}
    drawn = [f"{name}.{form}" for name in ("accuracy", "costs", "differences", "tuning") for form in ("pdf", "svg")]
    tables = ("families", "differences", "design", "hyperparameters")
    assert names == {*drawn, *(f"{name}.{form}" for name in tables for form in ("csv", "tex"))}
    assert all(path.read_bytes().startswith(b"%PDF") for path in written if path.suffix == ".pdf")
    drawn = (tmp_path / "deep/figures/differences.svg").read_text()
    assert len(re.findall(r"<use [^>]*style=\"[^\"]*opacity: 0.7", drawn)) == 10, "ten matched pairs"
    assert ">a_$b<" in drawn, "text that can be searched, and no mathematics"
    head, row = csv.reader((tmp_path / "deep/figures/differences.csv").read_text().splitlines())
    assert dict(zip(head, row, strict=True))["verdict"] == "better"
    again = write_figures(directories, tmp_path / "again")
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in written], "no date is in them"


def test_files_of_several_tasks_are_told_apart(directories, tmp_path):
    other = tmp_path / "all"
    for name, kind in (("trials.csv", TrialRow), ("final/trials.csv", TrialRow), ("rows.csv", EvaluationRow)):
        rows = read_rows(directories[0] / name, kind)
        (other / name).parent.mkdir(parents=True, exist_ok=True)
        write_rows(other / name, kind, [replace(row, per_class=None) for row in rows])
    names = {path.name for path in write_figures([directories[0], other], tmp_path / "figures")}
    assert {"digits-20-images-per-class-families.csv", "digits-all-images-families.csv"} <= names


def test_latex_needs_no_package_and_escapes_what_it_would_read():
    text = latex(["family", "Δ"], [["a_b & 5 %", "−1.0 to +2.0"]], ["family"], "n = 1")
    assert text.splitlines()[:4] == ["% n = 1", r"\begin{tabular}{lr}", r"\hline", r"family & $\Delta$ \\"]
    assert r"a\_b \& 5 \% & $-$1.0 to +2.0 \\" in text


@pytest.mark.parametrize("line", ["report x --figures out", "report x --figures=out", "report --figures out x"])
def test_the_directory_follows_the_option(line):
    command = parse(line.split())
    assert (command.names, command.flags) == (["x"], ["--figures", "out"])
