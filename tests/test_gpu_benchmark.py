"""benchmarks/gpu.py at toy size without a GPU: so that a GPU's minutes are not spent on its faults."""

import json
import os
import stat
import statistics
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch.utils._python_dispatch import TorchDispatchMode

from odenet import DataConfig, DataSet, Gradient, Network, Order, load_data
from odenet.data.sets import Images, read_images
from sweep.config.compose import REPLAYED, load
from sweep.records.run_directory import SweepFiles
from sweep.stages.replay import prepare_replay, replay

ROOT = Path(__file__).parents[1]
Rows = list[dict[str, Any]]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def benchmarks() -> Iterator[Any]:
    """Imports a module of the benchmarks as they import each other."""
    before = list(sys.path)
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield import_module
    sys.path[:] = before


def made_up(count: int) -> Images:
    draws = np.random.default_rng(count)
    pixels = draws.integers(0, 256, (count, 3, 8, 8), dtype=np.uint8)
    return Images(pixels, np.arange(count) % 10, np.arange(count))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory, benchmarks: Any) -> Rows:
    """All parts but the compiler's, with the first half of the training images."""
    place = tmp_path_factory.mktemp("gpu")
    benchmarks("gpu_pack").write({"train-1": made_up(40), "test": made_up(20)}, place / "packed")
    command = [sys.executable, "-W", "error", ROOT / "benchmarks/gpu.py", "--device", "cpu", "--patience", "4"]
    command += ["--only", "a,b,c,d,e,f,h", "--data", place / "packed"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OUT": str(place)}
    done = subprocess.run(command, env=environment, cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in (place / "gpu.jsonl").read_text().splitlines()]
    assert len(done.stdout.splitlines()) == len(found)
    return found


# Networks by their first letters, each with the gradient that it cannot have; of "re" the blocks that end with a ReLU.
REFUSED = {("lm", "reconstructed"), ("ne", "checkpointed"), ("re", "reconstructed")}


def of(rows: Rows, what: str) -> Iterator[dict[str, Any]]:
    return (row for row in rows if row.get("what") == what)


def test_every_part_comes_to_its_end_without_an_error(rows: Rows) -> None:
    assert rows[0]["part"] == "machine"
    assert [(row["part"], row["left_out"]) for row in of(rows, "end")] == [(part, 0) for part in "abcdefh"]
    assert [row for row in rows if "error" in row] == []


def test_every_network_gradient_and_arithmetic_has_a_finite_error_or_a_refusal(rows: Rows) -> None:
    seen = {(row["network"], row["gradient"], row["arithmetic"]) for row in of(rows, "error")}
    assert seen == {(n.value, g.value, a) for n in Network for g in Gradient for a in ("fp32", "bf16")}
    for row in of(rows, "error"):
        if "refused" in row:
            assert (row["network"][:2], row["gradient"]) in REFUSED
            assert row["refused"].startswith(("model.scheme=", "model.network="))
        else:
            assert all(0 <= row[key] < 10 for key in ("logits", "gradients", "gradients_in_all"))


def test_fp32_is_accurate_and_bf16_is_not_fp32(rows: Rows) -> None:
    """Medians: a single ReLU on the other side of 0 moves one network's gradients to some per cent."""
    measured = [row for row in of(rows, "error") if "logits" in row]
    fp32 = [row for row in measured if row["arithmetic"] == "fp32"]
    assert max(row["logits"] for row in fp32) < 1e-4
    assert statistics.median(row["gradients"] for row in fp32) < 1e-4
    assert min(row["logits"] for row in measured if row["arithmetic"] == "bf16") > 1e-4


def test_resumed_training_of_every_network_is_compared_bit_for_bit(rows: Rows) -> None:
    assert {row["network"] for row in of(rows, "resume")} == {network.value for network in Network}
    assert all(row["differ"] == [] and row["tensors"] > 0 for row in of(rows, "resume"))


def test_graphs_of_every_network_are_compared_bit_for_bit(rows: Rows) -> None:
    assert {row["network"] for row in of(rows, "graph")} == {network.value for network in Network}
    assert all(row["differ"] == [] and row["obstacle"] == "it runs on no CUDA device" for row in of(rows, "graph"))


def test_steps_are_timed_beside_the_ceilings_and_torchdiffeq(rows: Rows) -> None:
    assert [row["arithmetic"] for row in of(rows, "ceiling")] == ["fp32", "bf16", "copy"]
    steps = list(of(rows, "step"))
    assert len({row["network"] for row in steps}) == 6
    for row in steps:
        assert row["ms"]["n"] >= 1 and row["graph_ms"]["n"] >= 1
        assert all(row[key] > 0 for key in ("gflop", "of_matmul", "moved_gib", "of_copy", "graph_of_matmul"))
        assert row["of_copy"] * row["ms"]["median"] == pytest.approx(row["graph_of_copy"] * row["graph_ms"]["median"])
        assert ("speed_up" in row) == ("plain_loop_ms" in row) == row["network"].startswith("continuous")


def test_the_plain_loop_is_the_same_network_as_over_torchdiffeq(benchmarks: Any) -> None:
    peers = benchmarks("bench_train_step")
    x_BCHW = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for scheme in peers.EVALUATIONS:
        row = peers.Row(scheme, 2)
        solver, plain = peers.peer(row).double(), peers.peer(row, plain=True).double()
        plain.load_state_dict(solver.state_dict())
        torch.testing.assert_close(plain(x_BCHW), solver(x_BCHW), rtol=1e-10, atol=1e-10)


def test_memory_formats_are_timed_at_every_width_in_every_arithmetic(rows: Rows) -> None:
    formats = list(of(rows, "format"))
    assert [(row["width"], row["arithmetic"]) for row in formats] == [(w, a) for w in (8, 16) for a in ("fp32", "bf16")]
    for row in formats:
        found = [row[f"{name}_ms"]["median"] for name in ("channels_last", "contiguous", "benchmark")]
        assert min(found) > 0
        assert row["channels_last_speed_up"]["median"] == pytest.approx(found[1] / found[0])


def test_a_network_that_is_stored_contiguous_convolves_so(benchmarks: Any) -> None:
    formats, seen = benchmarks("gpu_formats"), set[bool]()

    class Look(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func._schema.name == "aten::convolution":
                seen.add(args[0].is_contiguous() and args[1].is_contiguous())
            return func(*args, **(kwargs or {}))

    with Look():
        formats.contiguous(formats._network(8))(torch.zeros(2, 3, 8, 8))
    assert seen == {True}


def test_sharing_is_timed_on_streams_and_in_processes_and_mps_says_that_it_is_not_here(rows: Rows) -> None:
    shared = list(of(rows, "share"))
    timed = [(row["kind"], row["batch_size"], row["side_by_side"]) for row in shared if "lacks" not in row]
    assert timed == [
        *(("streams", 2, count) for count in (1, 2)),
        *(("processes", 2, count) for count in (1, 2)),
        ("eager processes", 2, 1),
    ]
    for row in shared:
        if "lacks" in row:
            assert row["lacks"] == "nvidia-cuda-mps-control is not on this machine"
        else:
            assert row["trials_per_hour"] == pytest.approx(360 * row["steps_per_second"])  # of ten iterations


def test_accuracy_comes_with_the_clock_after_every_epoch_of_the_schedule(rows: Rows) -> None:
    (data,) = of(rows, "data")
    assert (data["images"], data["test_images"]) == (40, 20)  # half of the training images are enough
    for pilot, end in zip(of(rows, "pilot"), (row for row in of(rows, "clock")), strict=True):
        epochs = [row for row in of(rows, "epoch") if row["network"] == pilot["network"]]
        assert len(epochs) == pilot["epochs"] == end["epochs"]
        assert [row["seconds"] for row in epochs] == sorted(row["seconds"] for row in epochs)
        assert (end["seconds"], end["test_accuracy"]) == (epochs[-1]["seconds"], epochs[-1]["test_accuracy"])
        assert end["seconds_to_91"] is None and end["published_percent"] in ("91.41", "91.31")


def test_memory_is_asked_of_both_networks_with_both_gradients(rows: Rows) -> None:
    asked = [(row["network"], row["gradient"], row["arithmetic"]) for row in of(rows, "memory")]
    networks, gradients = ("hamiltonian-1202", "midpoint-1202"), ("reconstructed", "direct")
    assert asked == [(n, g, a) for a in ("bf16", "fp32") for n in networks for g in gradients]


def test_the_curve_of_a_random_configuration_is_whole(rows: Rows) -> None:
    (trial,) = of(rows, "curve")
    assert (trial["number"], trial["outcome"]) == (0, "done")
    assert [one["epoch"] for one in trial["curve"]] == [1, 2, 3]
    assert {"train_loss", "val_accuracy", "objective", "cost_train_gflops", "depth_steps"} <= trial["curve"][0].keys()


def test_curves_become_a_search_that_is_replayed_under_another_scheduler(
    rows: Rows, benchmarks: Any, tmp_path: Path
) -> None:
    (trial,) = of(rows, "curve")
    drawn = [benchmarks("gpu_curves").drawn(number) for number in range(4)]
    many = [{**trial, "number": number, "parameters": parameters} for number, parameters in enumerate(drawn)]
    assert benchmarks("gpu_recording").record([*rows, *many], tmp_path / "runs" / "recorded") == 4
    files = SweepFiles(tmp_path / "runs" / "recorded")
    config = load(["search.scheduler=asha", "replay.repeats=1"], files.config, REPLAYED)
    recording = prepare_replay(config, files)
    assert [one.row.model_parameters for one in recording.trials] == 4 * [trial["weights"]]
    said = StringIO()
    replay(config, recording, "recorded", Console(file=said, width=200))
    assert "asha" in said.getvalue()


def test_random_configurations_are_of_the_space_distinct_and_possible_in_their_epochs(benchmarks: Any) -> None:
    curves, full = benchmarks("gpu_curves"), benchmarks("gpu_case").FULL
    configs = [curves.drawn(number) for number in range(full.trials)]
    assert all(map(curves.SPACE.contains, configs))
    assert len({str(config) for config in configs}) == full.trials
    for config in configs:
        curves.experiment(config, full.trial_epochs)


def test_low_data_are_those_of_a_draw_in_file_order(benchmarks: Any) -> None:
    pool = read_images(DataConfig(), ".", test=False)
    found = benchmarks("gpu_curves").low_data(pool, 50)
    wanted = load_data(DataConfig(dataset=DataSet.digits, per_class=50, order=Order.file))
    assert wanted.val is not None
    assert np.array_equal(found.train.indices_B, wanted.train.indices_B)
    assert np.array_equal(found.val.indices_B, wanted.val.indices_B)


def test_what_is_packed_is_read_back_byte_for_byte_and_what_is_missing_or_damaged_is_named(
    benchmarks: Any, tmp_path: Path
) -> None:
    pack, images = benchmarks("gpu_pack"), made_up(30)
    images.pixels_BCHW[:3] = [[[[0]]], [[[255]]], [[[128]]]]
    pack.write({"train-1": images}, tmp_path)
    found = pack.read(tmp_path, "train-1")
    assert np.array_equal(found.pixels_BCHW, images.pixels_BCHW) and np.array_equal(found.labels_B, images.labels_B)
    assert pack.missing(tmp_path, "train-1", "test") == ["test.xz"]
    with pytest.raises(pack.MissingPart, match=r"lacks test.xz: carry it there"):
        pack.read(tmp_path, "test")
    packed = bytearray((tmp_path / "train-1.xz").read_bytes())
    packed[-40] ^= 1
    (tmp_path / "train-1.xz").write_bytes(packed)
    with pytest.raises(pack.DamagedPart, match=r"train-1.xz has another sha256 than manifest.json says"):
        pack.read(tmp_path, "train-1")
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(pack.DamagedPart, match=r"manifest.json does not describe train-1"):
        pack.read(tmp_path, "train-1")


FAKE = """#!/bin/sh
echo "$CUDA_MPS_PIPE_DIRECTORY $CUDA_MPS_LOG_DIRECTORY: $* $(cat)" >> "$SAID"
"""


def test_a_daemon_of_mps_is_started_in_a_place_of_its_own_and_ended_by_quit(
    benchmarks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    control, said = tmp_path / "nvidia-cuda-mps-control", tmp_path / "said"
    control.write_text(FAKE)
    control.chmod(control.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SAID", str(said))
    workers = benchmarks("gpu_workers")
    assert workers.mps_control() == str(control)
    mps = workers.Mps(str(control))
    place = Path(mps.start()["CUDA_MPS_PIPE_DIRECTORY"])
    assert place.is_dir() and mps.servers() == 0
    mps.end()
    mps.end()
    where = f"{place} {place.parent / 'log'}"
    assert said.read_text().splitlines() == [f"{where}: -d ", f"{where}:  get_server_list", f"{where}:  quit"]
    assert not place.exists()


def test_a_process_that_fails_or_dies_says_so_and_is_not_waited_for_again(benchmarks: Any) -> None:
    workers = benchmarks("gpu_workers")
    with workers.Workers(1) as crowd:
        crowd.call(0, int, "x")
        with pytest.raises(workers.Failed, match="ValueError: invalid literal"):
            crowd.answers([0], 60)
        crowd.call(0, int, "7")
        assert crowd.answers([0], 60) == [7]
        crowd.call(0, os._exit, 1)
        with pytest.raises(workers.Failed, match="process 0 ended"):
            crowd.answers([0], 60)
        with pytest.raises(workers.Failed, match="not tried, because process 0 ended"):
            crowd.call(0, int, "7")
