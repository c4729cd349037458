"""The worker: a segment is trained from the newest whole checkpoint to its end, whatever happened before."""

import errno
import gc
import shutil
import socket
import tempfile
import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ray.tune import PlacementGroupFactory
from ray.tune.result import TRIAL_INFO

from odenet.enums import Device
from odenet.training.checkpoint import load_checkpoint, save_checkpoint
from odenet.training.config import ExperimentConfig, RuntimeConfig
from odenet.training.loop import Training
from odenet.training.optim_config import OptimizerKind
from sweep.config.overrides import override
from sweep.config.schema import EvaluateConfig
from sweep.records.checkpoints import checkpoint_file, checkpoint_files, inherited_file
from sweep.records.files import marked
from sweep.records.outcome import Outcome
from sweep.records.rows import Phase
from sweep.worker import cuda
from sweep.worker.segment import Orders, Segment
from sweep.worker.segment_training import TrialFailed
from sweep.worker.trainable import SegmentTrainable
from tests.sweep.pretended import configured, data

CPU = RuntimeConfig(device=Device.cpu)
EXPERIMENT = override(configured().experiment, {"training.epochs": 4, "optim.lr": 0.05})
ORDERS = Orders(splits=data(), tables=EvaluateConfig(step_factors=[1.0, 2.0]), checkpoint_every=1, seconds=None)


def segment(folder: Path, until: int = 4, experiment: ExperimentConfig = EXPERIMENT, **more: Any) -> Segment:
    return Segment(
        number=0, trial_id="t0", phase=Phase.search, candidate=0, parameters={}, proposed_by="random",
        experiment=experiment, epochs=4, until=until, folder=str(folder), **more,
    )  # fmt: skip


class Worker(SegmentTrainable):
    """A trial in this process, with what the runner binds to it."""

    def setup(self, config: dict[str, Any]) -> None:  # type: ignore[override]
        super().setup(config, CPU, [config["orders"]], config["stop"])


def worker(one: Segment, orders: Orders = ORDERS) -> Worker:
    """One that has said where it is."""
    made = begun(one, orders)
    assert made.step() == {"place/host": socket.gethostname(), "place/node": "", "place/gpu": "", "done": False}
    return made


def begun(one: Segment, orders: Orders = ORDERS) -> Worker:
    resources = SimpleNamespace(trial_resources=PlacementGroupFactory([{"CPU": 1}]))
    stop = Path(one.folder).parent / "stop"
    config = {"batch": 0, "segment": one.to_dict(), "orders": orders, "stop": stop, TRIAL_INFO: resources}
    storage: Any = SimpleNamespace(
        trial_fs_path="here", trial_working_directory=tempfile.gettempdir()
    )  # else in the user's home
    return Worker(config, storage)


def run(one: Segment, orders: Orders = ORDERS) -> list[dict[str, Any]]:
    """The results of a segment."""
    trial = worker(one, orders)
    results: list[dict[str, Any]] = []
    while not results or not results[-1]["done"]:
        results.append(trial.step())
    return results


def learned(results: list[dict[str, Any]]) -> list[tuple[int, float, float]]:
    return [(result["epoch"], result["train/loss"], result["val/loss"]) for result in results]


@pytest.fixture(scope="module")
def undisturbed() -> list[tuple[int, float, float]]:
    training = Training(EXPERIMENT, CPU, data=data()[EXPERIMENT.data.portion])
    return [(report.epoch, report.metrics["train/loss"], report.metrics["val/loss"]) for report in training]


# --- legs -------------------------------------------------------------------------------------------------------------


def test_a_leg_reports_every_epoch_and_the_last_of_the_trial_says_what_came_of_it(tmp_path, undisturbed):
    results = run(segment(tmp_path / "0"))
    assert learned(results) == undisturbed
    assert [result["done"] for result in results] == [False] * 3 + [True]
    assert ["outcome" in result for result in results] == [False] * 3 + [True]
    last = results[-1]
    assert last["outcome"] == "done"
    assert {name for name in last if name.startswith("footprint/")} == {
        f"footprint/{name}" for name in ("parameters", "gflops", "rate_evaluations", "memory_mib", "latency_ms")
    }
    assert last["footprint/parameters"] == last["weights"]
    (trained,) = [table for table in last["manifestations"] if table["trained"]]
    assert trained["accuracy"] == last["val/accuracy"]
    assert len(last["manifestations"]) == 8  # four schemes, two numbers of steps


def test_a_leg_that_ends_before_the_trial_says_nothing_of_an_outcome(tmp_path):
    results = run(segment(tmp_path / "0", until=2))
    assert ([result["epoch"] for result in results], results[-1]["done"]) == ([1, 2], True)
    assert "outcome" not in results[-1]
    assert "manifestations" not in results[-1]


def test_the_next_leg_repeats_the_last_report_and_goes_on_as_if_undisturbed(tmp_path, undisturbed):
    first, second = run(segment(tmp_path / "0", until=2)), run(segment(tmp_path / "0", heard=2))
    assert learned(second)[0] == learned(first)[-1]
    assert learned(first) + learned(second)[1:] == undisturbed


def test_a_trial_that_is_complete_says_so_at_once(tmp_path):
    last, (again,) = run(segment(tmp_path / "0"))[-1], run(segment(tmp_path / "0", heard=4))
    assert again["outcome"] == "done"
    assert learned([again]) == learned([last])
    assert again["footprint/parameters"] == last["footprint/parameters"]


def test_a_worker_takes_the_next_leg_without_anything_of_the_one_before(tmp_path, undisturbed):
    one = worker(segment(tmp_path / "other", experiment=override(EXPERIMENT, {"training.seed": 9})))
    one.step()
    assert one.reset_config({"batch": 0, "segment": segment(tmp_path / "0").to_dict()})
    assert "place/host" in one.step()
    assert learned([one.step()]) == undisturbed[:1]


def test_the_network_before_is_gone_when_the_memory_of_the_next_one_is_limited(tmp_path, monkeypatch):
    one, alive = worker(segment(tmp_path / "0")), list[bool]()
    one.step()
    model = weakref.ref(one._training._training.model)

    def limit_memory(_: float) -> None:
        gc.collect()
        alive.append(model() is not None)

    monkeypatch.setattr(cuda, "limit_memory", limit_memory)
    one.reset_config({"batch": 0, "segment": segment(tmp_path / "1").to_dict()})
    assert alive == [False]


# --- checkpoints ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("every", "epochs"), [(1, [4, 3]), (3, [4, 3]), (2, [4, 2]), (9, [4])])
def test_the_two_newest_checkpoints_are_kept_and_the_end_of_a_leg_is_always_one(tmp_path, every, epochs):
    run(segment(tmp_path / "0"), replace(ORDERS, checkpoint_every=every))
    assert [load_checkpoint(file).epoch for file in checkpoint_files(tmp_path / "0")] == epochs


@pytest.mark.parametrize("damage", [b"", b"half", None], ids=["empty", "foreign", "cut short"])
def test_where_the_newest_checkpoint_is_damaged_the_one_before_is_used_and_said(tmp_path, undisturbed, damage):
    run(segment(tmp_path / "0", until=2))
    file = checkpoint_file(tmp_path / "0", 2)
    file.write_bytes(file.read_bytes()[:-10] if damage is None else damage)
    results = run(segment(tmp_path / "0"))
    assert learned(results) == undisturbed
    assert "epoch-000002.ckpt" in results[0]["notice"]
    assert results[0]["notice"].endswith("Going on from epoch 1.")
    assert all("notice" not in result for result in results[1:])


def test_where_every_checkpoint_is_damaged_it_begins_again_and_says_so(tmp_path, undisturbed):
    run(segment(tmp_path / "0", until=2))
    for file in checkpoint_files(tmp_path / "0"):
        file.write_bytes(b"")
    results = run(segment(tmp_path / "0"))
    assert learned(results) == undisturbed
    assert results[0]["notice"].endswith("Going on from the beginning.")


@pytest.mark.parametrize("heard", [0, 1, 2, 3])
def test_epochs_that_a_loss_of_power_took_from_the_record_are_reported_again_and_not_trained(
    tmp_path, monkeypatch, heard
):
    whole = learned(run(segment(tmp_path / "0", until=3)))
    with monkeypatch.context() as patch:
        patch.setattr(Training, "__next__", lambda _: pytest.fail("an epoch was trained"))
        again = run(segment(tmp_path / "0", until=3, heard=heard))
    assert learned(again) == whole[min(heard, 2) :]


def test_a_rung_among_the_epochs_that_are_reported_again_ends_the_leg(tmp_path):
    whole = learned(run(segment(tmp_path / "0", until=3)))
    again = run(segment(tmp_path / "0", until=2))
    assert (learned(again), again[-1]["done"]) == (whole[:2], True)


def without_history(file: Path) -> None:
    """As version 0.1.0 wrote it."""
    checkpoint = load_checkpoint(file)
    del checkpoint.progress["earlier"]
    save_checkpoint(file, checkpoint)


def test_from_an_old_checkpoint_that_is_ahead_of_the_record_it_goes_back_to_one_that_is_not(tmp_path, undisturbed):
    run(segment(tmp_path / "0", until=3))
    for file in checkpoint_files(tmp_path / "0"):
        without_history(file)
    results = run(segment(tmp_path / "0", heard=1))
    assert learned(results) == undisturbed[1:]
    assert "epoch-000003.ckpt is ahead of the record, which ends at epoch 1" in results[0]["notice"]
    assert results[0]["notice"].endswith("Going on from epoch 2.")
    run(segment(tmp_path / "1", until=3))
    for file in checkpoint_files(tmp_path / "1"):
        without_history(file)
    results = run(segment(tmp_path / "1"))
    assert learned(results) == undisturbed
    assert results[0]["notice"].endswith("Going on from the beginning.")


# --- weights of another trial -----------------------------------------------------------------------------------------


def inherited(tmp_path: Path, epoch: int) -> str:
    """What another trial, which learns faster, had after so many epochs."""
    run(segment(tmp_path / "donor", until=epoch, experiment=override(EXPERIMENT, {"optim.lr": 0.1})))
    file = inherited_file(tmp_path / "0", epoch)
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(checkpoint_file(tmp_path / "donor", epoch).read_bytes())
    return str(file)


@pytest.mark.parametrize("changes", [{"optim.lr": 0.2}, {}], ids=["another experiment", "the same experiment"])
def test_a_member_that_inherits_weights_goes_on_from_these_and_not_from_its_own(tmp_path, changes):
    """Also where what it tries next is what it had tried before."""
    run(segment(tmp_path / "0", until=2))
    start, experiment = inherited(tmp_path, 2), override(EXPERIMENT, changes)
    results = run(segment(tmp_path / "0", until=3, experiment=experiment, start=start))
    donor = load_checkpoint(checkpoint_file(tmp_path / "donor", 2))
    assert results[0]["train/loss"] == donor.progress["last"]["metrics"]["train/loss"]
    assert [result["epoch"] for result in results] == [2, 3]
    assert load_checkpoint(checkpoint_file(tmp_path / "0", 3)).experiment == experiment


def test_a_member_that_was_cut_short_after_it_inherited_goes_on_where_it_was(tmp_path):
    start, experiment = inherited(tmp_path, 1), override(EXPERIMENT, {"optim.lr": 0.2})
    whole = run(segment(tmp_path / "0", experiment=experiment, start=start))
    for file in checkpoint_files(tmp_path / "0"):
        file.unlink()
    cut = run(segment(tmp_path / "0", until=3, experiment=experiment, start=start))
    rest = run(segment(tmp_path / "0", experiment=experiment, start=start, heard=3))
    assert learned(cut) + learned(rest)[1:] == learned(whole)
    assert rest[0]["epoch"] == 3


def test_a_schedule_changes_the_experiment_between_two_legs(tmp_path):
    run(segment(tmp_path / "0", until=2))
    later = override(EXPERIMENT, {"optim.lr": 0.2, "model.scheme": "midpoint"})
    results = run(segment(tmp_path / "0", experiment=later, heard=2))
    assert [result["epoch"] for result in results] == [2, 3, 4]
    assert load_checkpoint(checkpoint_file(tmp_path / "0", 4)).experiment == later


# --- how it ends otherwise --------------------------------------------------------------------------------------------


def test_when_the_sweep_is_stopped_the_present_epoch_is_kept_and_the_trial_interrupted(tmp_path, undisturbed):
    one = worker(segment(tmp_path / "0"), orders := replace(ORDERS, checkpoint_every=9))
    assert not one.step()["done"]
    (tmp_path / "stop").touch()
    result = one.step()
    assert (result["epoch"], result["outcome"], result["reason"], result["done"]) == (
        2, "interrupted", "the sweep was stopped", True,
    )  # fmt: skip
    (tmp_path / "stop").unlink()
    assert learned(run(segment(tmp_path / "0", heard=2), orders)) == undisturbed[1:]


def test_a_trial_that_is_at_its_end_when_the_sweep_is_stopped_is_done(tmp_path):
    one = worker(segment(tmp_path / "0"))
    for _ in range(3):
        one.step()
    (tmp_path / "stop").touch()
    assert one.step()["outcome"] == "done"
    assert run(segment(tmp_path / "0"))[-1]["outcome"] == "done"


def test_a_trial_whose_time_is_up_is_ended_in_the_midst_of_an_epoch(tmp_path):
    (result,) = run(segment(tmp_path / "0"), replace(ORDERS, seconds=1e-6))
    assert result == {"outcome": "timeout", "reason": "longer than 0 s", "done": True}


def test_the_seconds_of_former_legs_count_as_time(tmp_path):
    run(segment(tmp_path / "0", until=1))
    file = checkpoint_file(tmp_path / "0", 1)
    checkpoint = load_checkpoint(file)
    checkpoint.progress["seconds"] = checkpoint.progress["last"]["metrics"]["cost/seconds"] = 10_000.0
    save_checkpoint(file, checkpoint)
    results = run(segment(tmp_path / "0"), replace(ORDERS, seconds=9_000.0))
    assert [result.get("outcome") for result in results] == [None, "timeout"]
    assert results[-1]["reason"] == "longer than 9000 s"


def test_a_loss_that_is_not_finite_is_divergence(tmp_path):
    wild = override(EXPERIMENT, {"optim.lr": 1e30, "optim.optimizer": OptimizerKind.sgd.value})
    result = run(segment(tmp_path / "0", experiment=wild))[-1]
    assert (result["outcome"], result["done"]) == ("diverged", True)
    assert "loss is" in result["reason"]


def test_so_is_an_adaptive_scheme_that_finds_no_step_whatever_asked_for_one(tmp_path, monkeypatch):
    _fail_with(monkeypatch, FloatingPointError("no further step"))
    (result,) = run(segment(tmp_path / "0"))
    assert result == {"outcome": "diverged", "reason": "no further step", "done": True}


@pytest.mark.parametrize(
    ("error", "outcome", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), Outcome.interrupted, "No space left"),
        (OSError(errno.EROFS, "Read-only file system"), Outcome.interrupted, "Read-only"),
        (OSError(errno.EACCES, "Permission denied"), Outcome.interrupted, "Permission"),
        (torch.OutOfMemoryError("CUDA out of memory\nmore"), Outcome.cuda_oom, "CUDA out of memory"),
    ],
)
def test_what_the_machine_refuses_has_its_own_outcome(tmp_path, monkeypatch, error, outcome, reason):
    _fail_with(monkeypatch, error)
    (result,) = run(segment(tmp_path / "0"))
    assert (result["outcome"], "storage" in result) == (outcome.value, isinstance(error, OSError))
    assert reason in result["reason"]
    assert "\n" not in result["reason"]


@pytest.mark.parametrize("error", [KeyError(1), OSError(errno.EBADF, "Bad file descriptor"), ZeroDivisionError("by 0")])
def test_a_defect_is_reported_first_and_then_an_error_in_rays_eyes(tmp_path, monkeypatch, error):
    _fail_with(monkeypatch, error)
    one = worker(segment(tmp_path / "0"))
    result = one.step()
    assert (result["outcome"], result["done"]) == ("code", False)
    assert result["reason"] == f"{type(error).__name__}: {error}"
    assert result["details"].startswith("Traceback") and result["reason"] in result["details"]
    assert "segment_training.py" in result["details"]
    with pytest.raises(TrialFailed, match=type(error).__name__):
        one.step()


def test_a_worker_that_does_not_see_the_run_directory_trains_nothing_and_says_so_first(tmp_path):
    orders = replace(ORDERS, marker=tmp_path / "elsewhere" / ".session-1")
    result = begun(segment(tmp_path / "0"), orders).step()
    assert (result["outcome"], result["done"], result["place/host"]) == ("node_unfit", True, socket.gethostname())
    where = f"{socket.gethostname()} cannot use the run directory {tmp_path / 'elsewhere'}"
    assert result["reason"] == f"{where}: No such file or directory"
    assert list(tmp_path.iterdir()) == []


def test_a_run_directory_that_goes_meanwhile_is_not_made_anew_on_the_workers_own_disk(tmp_path):
    runs = tmp_path / "runs"
    (runs / "checkpoints").mkdir(parents=True)
    with marked(runs) as marker:
        one = worker(segment(runs / "checkpoints" / "0"), replace(ORDERS, marker=marker))
        assert one.step()["epoch"] == 1
        shutil.rmtree(runs)
        result = one.step()
    assert (result["outcome"], result["done"]) == ("node_unfit", True)
    assert result["reason"].endswith(f"cannot use the run directory {runs}: No such file or directory")
    assert not runs.exists()


def _fail_with(patch: pytest.MonkeyPatch, error: Exception) -> None:
    def save(*_: Any) -> None:
        raise error

    patch.setattr(Training, "save", save)
