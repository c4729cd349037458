"""As `test_elsewhere`, by the command and on real Ray, whose workers need the credentials."""

from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from sweep.records.outcome import Outcome
from sweep.records.rows import CurveRow, TrialRow
from sweep.records.run_directory import SweepFiles
from sweep.records.tables import read_rows
from tests.sweep.faults.fault_drivers import lines, place
from tests.sweep.storage.bucket_server import SECRET
from tests.sweep.storage.test_elsewhere import lost_driver


def with_secret(directory: Path) -> list[Path]:
    found = []
    for path in directory.rglob("*"):
        with suppress(OSError):  # it is gone meanwhile
            found += [path] if path.is_file() and SECRET.encode() in path.read_bytes() else []
    return found


@pytest.mark.slow
def test_a_sweep_goes_on_elsewhere_on_ray_and_no_file_has_the_secret(bucket, tmp_path):
    before = lost_driver(bucket, tmp_path / "lost" / "onray")
    with place() as there:
        files = SweepFiles(there.run("onray"))
        driver = there.start("resume", "onray", f"runtime.storage={bucket.address}")
        driver.until(lambda: lines(files.curves) > 6)  # Ray and its workers write their logs
        leaks = with_secret(there.path)
        assert "was built again from" in driver.finish()
        rows = read_rows(files.trials, TrialRow)
        assert [(row.outcome, row.epochs, row.legs) for row in rows] == [(Outcome.done, 4, legs) for legs in (1, 2, 1)]
        assert [row.trial_id for row in rows[:2]] == [before[number].trial_id for number in range(2)]
        epochs = Counter((row.number, row.epoch) for row in read_rows(files.curves, CurveRow))
        assert epochs == {(number, epoch): 1 for number in range(3) for epoch in range(1, 5)}
        assert leaks + with_secret(there.path) == []
