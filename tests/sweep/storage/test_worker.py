"""Workers that keep their checkpoints in a bucket: trained to the bit as with files, also through damage."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweep.records.outcome import Outcome
from sweep.storage import opening, stop
from sweep.storage.folders import BucketFolder, DirectoryFolder, open_folder
from sweep.storage.lease import begin_session
from sweep.storage.mirror import Mirror
from sweep.storage.opening import open_store
from sweep.storage.stop import StopObject, StopSign
from sweep.worker.segment_training import SegmentTraining
from tests.sweep.storage.bucket_server import SECRET, BucketServer
from tests.sweep.worker.test_trainable import CPU, ORDERS, learned, segment


def begun(folder: str, until: int = 4, sign: StopSign = Path("/no/stop"), **more: Any) -> SegmentTraining:
    one = replace(segment(Path("x"), until, **more), folder=folder)
    return SegmentTraining(one, CPU, ORDERS, sign)


def run(folder: str, until: int = 4, **more: Any) -> list[dict[str, Any]]:
    trial = begun(folder, until, **more)
    results: list[dict[str, Any]] = []
    while not results or not results[-1]["done"]:
        results.append(trial.step().to_dict())
    return results


def test_a_trial_goes_on_from_a_bucket_as_from_files_also_where_the_newest_object_is_damaged(bucket, tmp_path):
    undisturbed = learned(run(str(tmp_path / "0")))
    place = f"{bucket.address}/x/checkpoints/000000-t0"
    assert learned(run(place, until=2)) == undisturbed[:2]
    assert open_folder(place).names() == [f"epoch-{epoch:06d}.ckpt" for epoch in (2, 1)]
    damaged = bucket.damage("000000-t0/epoch-000002")
    results = run(place, heard=2)
    assert f"{damaged} is damaged" in results[0]["notice"]
    assert learned(results)[-2:] == undisturbed[2:]
    assert open_folder(place).names() == [f"epoch-{epoch:06d}.ckpt" for epoch in (4, 3)]


def test_a_worker_waits_for_a_bucket_that_is_away_and_trains_no_epoch_again(bucket):
    place = f"{bucket.address}/x/checkpoints/000001-t0"
    trial = begun(place)
    results = [trial.step().to_dict()]
    with bucket.away():
        back = threading.Timer(1.0, bucket._server.start)
        back.start()
        results.append(trial.step().to_dict())
        back.join()
        bucket.stop()
    assert [result["epoch"] for result in results] == [1, 2]
    assert open_folder(place).names()[0] == "epoch-000002.ckpt"


def test_a_bucket_that_stays_away_interrupts_the_trial_and_says_which_storage(bucket, monkeypatch):
    monkeypatch.setattr(BucketFolder, "_ask", lambda self, ask: opening.patiently(ask, 0.0))
    trial = begun(f"{bucket.address}/x/checkpoints/000002-t0")
    with bucket.away():
        result = trial.step().to_dict()
    assert (result["outcome"], result["done"]) == ("interrupted", True)
    assert f"s3://{bucket.address.split('/')[2]} does not answer" in result["storage"]
    assert SECRET not in str(result)


@pytest.mark.parametrize("kind", ["directory", "bucket"])
def test_a_folder_takes_what_another_has_copies_it_and_is_removed_alone(
    kind: str, bucket: BucketServer, tmp_path: Path
) -> None:
    root = str(tmp_path) if kind == "directory" else f"{bucket.address}/folders"
    one, other, third = (open_folder(f"{root}/{name}") for name in ("1-a", "2-b", "1-ab"))
    assert isinstance(one, DirectoryFolder if kind == "directory" else BucketFolder)
    run(f"{root}/1-a", until=1)
    other.take("inherited-000001.ckpt", f"{root}/1-a", "epoch-000001.ckpt")
    third.take("inherited-000001.ckpt", f"{root}/1-a", "epoch-000009.ckpt")
    assert [folder.has("inherited-000001.ckpt") for folder in (one, other, third)] == [False, True, False]
    other.copy_to("inherited-000001.ckpt", target := tmp_path / "model.ckpt")
    assert target.read_bytes()
    one.remove()
    assert [folder.is_there() for folder in (one, other)] == [False, True]


def test_a_worker_that_does_not_see_the_drivers_disk_stops_by_an_object(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(stop, "ASK_SECONDS", 0.0)
    store = open_store(bucket.address)
    mirror = Mirror(store, begin_session(store, "stopped", "here", print), tmp_path)
    trial = begun(f"{bucket.address}/stopped/checkpoints/000000-t0", sign=StopObject(mirror.stop_address))
    assert trial.step().ended is None
    (tmp_path / "stop").touch()
    mirror.turn()
    result = trial.step()
    assert result.done and result.ended is not None and result.ended.outcome is Outcome.interrupted
