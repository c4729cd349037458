"""rows.csv holds only what an evaluation can have measured, each once, of the networks beside it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweep.errors import InputError
from sweep.records.evaluation import EvaluationFiles, read_measured
from sweep.records.rows import EvaluationRow, Phase, TrialRow
from sweep.records.run_directory import SweepFiles
from sweep.records.tables import write_rows
from tests.sweep.sweep_files import trial

NETWORK: TrialRow = trial(0, phase=Phase.final)
FIRST = EvaluationRow(
    family=NETWORK.family, dataset=NETWORK.dataset, per_class=NETWORK.per_class, draw=NETWORK.draw, seed=NETWORK.seed,
    scheme="euler", steps=4, condition="clean", severity=0.0, split="test", metric="accuracy", value=0.5, n=596,
    trained_scheme="euler", trained_steps=4, config_hash=NETWORK.config_hash, data_hash=NETWORK.data_hash,
)  # fmt: skip
FOG = {"condition": "corruption/fog", "severity": 3.0}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"condition": "nonsense"}, "condition 'nonsense' is unknown; possible are clean, manifestation"),
        (FOG | {"condition": "corruption/rain"}, "corruption 'rain' is unknown; possible are gaussian_noise"),
        (FOG | {"condition": "corruption"}, "corruption '' is unknown"),
        (FOG | {"severity": 9.0}, "severity 9 is none of a corruption"),
        ({"split": "val"}, "split 'val' is unknown"),
        (FOG | {"value": float("nan")}, "accuracy is nan; a share of images is 0 to 1"),
        ({"condition": "manifestation", "metric": "lost", "value": 1.5}, "lost is 1.5"),
        (FOG | {"n": 0}, "n is 0"),
        (FOG | {"n": -596}, "n is -596"),
        ({}, "clean, accuracy of seed 7 is in line 2, too"),
        ({"value": 0.9}, "clean, accuracy of seed 7 is in line 2, too"),
    ],
)
def test_a_row_that_no_evaluation_writes_is_refused_by_its_line(
    tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    write_rows(tmp_path / "rows.csv", EvaluationRow, [FIRST, replace(FIRST, **changes)])
    with pytest.raises(InputError, match=r"rows\.csv, line 3: ") as refused:
        read_measured(tmp_path / "rows.csv")
    assert told in str(refused.value)


def test_what_may_be_not_finite_is_read(tmp_path: Path) -> None:
    unstable = replace(FIRST, metric="loss", value=float("inf"))
    write_rows(tmp_path / "rows.csv", EvaluationRow, [FIRST, unstable, replace(FIRST, **FOG)])
    assert len(read_measured(tmp_path / "rows.csv")) == 3


def cells(condition: str, *metrics: str, severities: tuple[float, ...] = (0.0,)) -> list[EvaluationRow]:
    return [
        replace(FIRST, condition=condition, metric=metric, severity=severity, value=0.5)
        for severity in severities
        for metric in metrics
    ]


CELLS = {
    "clean": cells("clean", "accuracy", "loss"),
    "manifestation": [
        replace(one, scheme=scheme, steps=steps)
        for scheme in ("euler", "rk4")
        for steps in (4, 8)
        for one in cells("manifestation", "accuracy", "loss", "lost")
    ],
    "corruption/fog": cells("corruption/fog", "accuracy", "loss", severities=(3.0,)),
    "attack": [
        *cells("attack/clean", "accuracy"),
        *cells("attack/linf/union", "accuracy", "first_broken", severities=(2.0, 8.0)),
        *cells("attack/check/pgd_saturates", "passed", "value", "limit"),
    ],
}


@pytest.mark.parametrize("condition", CELLS)
def test_a_cell_with_a_part_missing_counts_as_not_measured_whichever_part(tmp_path: Path, condition: str) -> None:
    files, own = SweepFiles(tmp_path), CELLS[condition]
    write_rows(files.rows, EvaluationRow, own)
    severity = 3.0 if "corruption" in condition else 0.0
    assert severity in EvaluationFiles(files, [NETWORK]).severities(NETWORK, condition)
    for row in own:
        left = [one for one in own if one != row]
        write_rows(files.rows, EvaluationRow, left)
        known = EvaluationFiles(files, [NETWORK])
        assert (known.rows, known.partial, known.severities(NETWORK, condition)) == ([], left, set()), row
    known.add([own[-1]], [NETWORK.seed])
    assert read_measured(files.rows) == [own[-1]], "what is left of a cell goes when it is measured again"


@pytest.mark.parametrize("changes", [{"family": "other"}, {"draw": 5}, {"per_class": 1}, {"data_hash": "other"}])
def test_rows_of_another_cell_are_of_another_network(tmp_path: Path, changes: dict[str, Any]) -> None:
    files = SweepFiles(tmp_path)
    write_rows(files.rows, EvaluationRow, [FIRST])
    EvaluationFiles(files, [NETWORK]).check_networks()
    write_rows(files.rows, EvaluationRow, [replace(FIRST, **changes)])
    with pytest.raises(InputError, match="has results of a network that is not in"):
        EvaluationFiles(files, [NETWORK]).check_networks()
