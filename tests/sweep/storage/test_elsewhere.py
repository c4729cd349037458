"""A driver's machine is lost; another one, with nothing but the address, goes on with the sweep on real Ray."""

import json
from collections import Counter
from contextlib import suppress
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from odenet.enums import Device
from odenet.training.config import RuntimeConfig
from sweep.config.compose import load
from sweep.config.schema import AppConfig
from sweep.execution.controller import Controller
from sweep.execution.interrupt import Interrupt
from sweep.execution.mlflow_runs import TrialRuns
from sweep.execution.observers import CheckpointCleaner
from sweep.execution.run import orders_of
from sweep.execution.session import Session
from sweep.records.files import write_text
from sweep.records.outcome import Outcome
from sweep.records.rows import CurveRow, TrialRow
from sweep.records.run_directory import SweepFiles
from sweep.records.tables import read_rows
from sweep.stages.search import Search, prepare_new_search
from sweep.storage.lease import begin_session
from sweep.storage.mirror import RECORD, Mirror
from sweep.storage.opening import open_store
from sweep.storage.rebuild import record_text
from sweep.tracking.lines import OUTBOX
from sweep.tracking.outbox import Tracker
from sweep.worker.segment import Segment
from sweep.worker.segment_training import SegmentTraining
from tests.sweep.faults.fault_drivers import lines, place
from tests.sweep.storage.bucket_server import SECRET, BucketServer
from tests.sweep.sweep_files import TINY

WORDS = [*TINY, "search.trials=3", "training.epochs=4", "search.checkpoint_every=1", "cluster.cpus=1"]


def begun(config: AppConfig, directory: Path, mirror: Mirror) -> tuple[Search, Controller]:
    """A search as the command begins it, but for Ray."""
    console = Console(file=StringIO())
    session = Session(config, directory.name, Tracker(directory / OUTBOX), console, mirror)
    search = Search(session, prepare_new_search(config))
    batch = search.batch
    controller = Controller(batch.source, batch.log, Interrupt(directory / "stop", print), print)
    controller.take_up([TrialRuns(session, batch.splits), CheckpointCleaner(mirror)])
    return search, controller


def train(search: Search, controller: Controller, epochs: int) -> Segment:
    """Begin the next segment, and train so many epochs of it as a worker does."""
    segment = controller.next_segment()
    assert isinstance(segment, Segment)
    worker = SegmentTraining(segment, RuntimeConfig(device=Device.cpu), orders_of(search.batch), Path("/no/stop"))
    for _ in range(epochs):
        result = worker.step()
        controller.result(segment, result)
        if result.done:
            controller.segment_ended(segment, result, "TERMINATED")
    return segment


def with_secret(directory: Path) -> list[Path]:
    found = []
    for path in directory.rglob("*"):
        with suppress(OSError):  # it is gone meanwhile, or a socket
            found += [path] if path.is_file() and SECRET.encode() in path.read_bytes() else []
    return found


@pytest.mark.slow
def test_a_sweep_goes_on_elsewhere_with_nothing_but_the_address(bucket: BucketServer, tmp_path: Path) -> None:
    lost = tmp_path / "lost" / "moved"
    config = load([*WORDS, f"runtime.storage={bucket.address}", f"runtime.runs_dir={lost.parent}"])
    write_text(lost / RECORD, record_text(bucket.address))
    store = open_store(bucket.address)
    mirror = Mirror(store, begin_session(store, "moved", json.loads((lost / RECORD).read_text())["copy"], print), lost)
    search, controller = begun(config, lost, mirror)
    train(search, controller, epochs=4)
    train(search, controller, epochs=2)
    mirror.turn()
    train(search, controller, epochs=0)  # begun after the last manifest
    before = {row.number: row for row in search.batch.log.in_order()}
    bucket.age(60)

    with place() as there:
        files = SweepFiles(there.run("moved"))
        driver = there.start("resume", "moved", f"runtime.storage={bucket.address}")
        driver.until(lambda: lines(files.curves) > 6)  # Ray and its workers write their logs
        leaks = with_secret(there.path)
        said = driver.finish()
        rows = read_rows(files.trials, TrialRow)
        assert [(row.number, row.outcome, row.epochs) for row in rows] == [(n, Outcome.done, 4) for n in range(3)]
        assert [(row.trial_id, row.parameters) for row in rows[:2]] == [
            (before[number].trial_id, before[number].parameters) for number in range(2)
        ]
        assert [row.legs for row in rows] == [1, 2, 1]
        epochs = Counter((row.number, row.epoch) for row in read_rows(files.curves, CurveRow))
        assert epochs == {(number, epoch): 1 for number in range(3) for epoch in range(1, 5)}
        assert "was built again from" in said
        assert leaks + with_secret(there.path) == []
    stored = {one.key: store.get(one.key) for one in store.objects("moved/")}
    assert SECRET.encode() not in b"".join(stored.values())
    assert sum("-closed" in key for key in stored) == 1
    kept = Counter(key.split("/")[2].split("-")[0] for key in stored if "/checkpoints/" in key)
    assert {number: kept[number] for number in ("000000", "000001")} == {"000000": 1, "000001": 1}
