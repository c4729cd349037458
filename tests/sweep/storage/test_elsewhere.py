"""A driver's machine is lost; another one, with nothing but the address, goes on with the sweep. Without Ray."""

import json
import shutil
from collections import Counter
from io import StringIO
from pathlib import Path

from rich.console import Console

from odenet.enums import Device
from odenet.training.config import RuntimeConfig
from sweep.cli.existing import existing
from sweep.cli.parse import parse
from sweep.config.compose import load
from sweep.config.schema import AppConfig
from sweep.execution.controller import Controller
from sweep.execution.interrupt import Interrupt
from sweep.execution.mlflow_runs import TrialRuns
from sweep.execution.observers import CheckpointCleaner
from sweep.execution.run import orders_of
from sweep.execution.session import Session
from sweep.execution.trial_source import FINISHED, Next
from sweep.records.files import write_text
from sweep.records.outcome import Outcome
from sweep.records.rows import CurveRow, TrialRow
from sweep.records.run_directory import SweepFiles, run_directory
from sweep.records.tables import read_rows
from sweep.stages.resume import prepare_resume
from sweep.stages.search import PreparedSearch, Search, prepare_new_search
from sweep.storage.lease import begin_session
from sweep.storage.mirror import RECORD, Mirror
from sweep.storage.mirroring import mirrored
from sweep.storage.opening import open_store
from sweep.storage.rebuild import rebuild, record_text
from sweep.tracking.lines import OUTBOX
from sweep.tracking.outbox import Tracker
from sweep.worker.segment import Segment
from sweep.worker.segment_training import SegmentTraining
from tests.sweep.storage.bucket_server import SECRET, BucketServer
from tests.sweep.sweep_files import TINY

WORDS = [*TINY, "search.trials=3", "training.epochs=4", "search.checkpoint_every=1", "cluster.cpus=1"]


def begun(prepared: PreparedSearch, config: AppConfig, directory: Path, mirror: Mirror) -> tuple[Search, Controller]:
    """A search as the command begins it, but for Ray."""
    console = Console(file=StringIO())
    session = Session(config, directory.name, Tracker(directory / OUTBOX), console, mirror)
    search = Search(session, prepared)
    batch = search.batch
    controller = Controller(batch.source, batch.log, Interrupt(directory / "stop", print), print)
    controller.take_up([TrialRuns(session, batch.splits), CheckpointCleaner(mirror)])
    return search, controller


def train(search: Search, controller: Controller, epochs: int = 4) -> Next:
    """Begin the next segment, and train so many epochs of it as a worker does."""
    segment = controller.next_segment()
    if not isinstance(segment, Segment):
        return segment
    worker = SegmentTraining(segment, RuntimeConfig(device=Device.cpu), orders_of(search.batch), Path("/no/stop"))
    for _ in range(epochs):
        result = worker.step()
        controller.result(segment, result)
        if result.done:
            controller.segment_ended(segment, result, "TERMINATED")
            break
    return segment


def lost_driver(bucket: BucketServer, directory: Path) -> dict[int, TrialRow]:
    """Trial 0 is done, trial 1 has trained two epochs, trial 2 was begun after the last manifest when the machine is
    lost. Returns how they stood."""
    config = load([*WORDS, f"runtime.storage={bucket.address}", f"runtime.runs_dir={directory.parent}"])
    write_text(directory / RECORD, record_text(bucket.address))
    store, copy = open_store(bucket.address), json.loads((directory / RECORD).read_text())["copy"]
    mirror = Mirror(store, begin_session(store, directory.name, copy, print), directory)
    search, controller = begun(prepare_new_search(config), config, directory, mirror)
    train(search, controller)
    train(search, controller, epochs=2)
    mirror.turn()
    train(search, controller, epochs=0)
    shutil.rmtree(directory)
    bucket.age(60)  # the driver was killed a minute ago
    return {row.number: row for row in search.batch.log.in_order()}


def test_a_sweep_goes_on_elsewhere_with_nothing_but_the_address(bucket, tmp_path, monkeypatch):
    before = lost_driver(bucket, tmp_path / "lost" / "moved")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    config, name = existing(parse(["resume", "moved", f"runtime.storage={bucket.address}"]))
    prepared = prepare_resume(config, name)
    directory = run_directory(config, name)
    with mirrored(config.runtime.storage, directory, print) as mirror:
        assert mirror is not None
        search, controller = begun(prepared, config, directory, mirror)
        while train(search, controller) is not FINISHED:
            pass
        controller.finish("")
        search.conclude()

    rows = read_rows(SweepFiles(directory).trials, TrialRow)
    assert [(row.number, row.outcome, row.epochs, row.legs) for row in rows] == [
        (0, Outcome.done, 4, 1), (1, Outcome.done, 4, 2), (2, Outcome.done, 4, 1),
    ]  # fmt: skip
    assert [row.trial_id == before[row.number].trial_id for row in rows] == [True, True, False]
    assert [row.parameters for row in rows[:2]] == [before[number].parameters for number in range(2)]
    epochs = Counter((row.number, row.epoch) for row in read_rows(SweepFiles(directory).curves, CurveRow))
    assert epochs == {(number, epoch): 1 for number in range(3) for epoch in range(1, 5)}
    assert (
        sorted(one.key.rpartition("/")[2] for one in open_store(bucket.address).objects("moved/checkpoints/"))
        == ["epoch-000004.ckpt"] * 3
    )


def test_no_file_and_no_object_has_a_secret_of_the_bucket(bucket, tmp_path):
    lost_driver(bucket, tmp_path / "lost" / "secret")
    store = open_store(bucket.address)
    rebuild(store, "secret", tmp_path / "secret", print)
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    stored = b"".join(store.get(one.key) for one in store.objects("secret/"))
    assert bucket.address.encode() in written and bucket.address.encode() in stored
    assert SECRET.encode() not in written + stored
