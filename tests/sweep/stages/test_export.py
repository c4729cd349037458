"""`sweep export`: what is written answers as the network does, read as its readers read it, or is not kept."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from odenet import DataConfig, Device, RuntimeConfig, Training, load_checkpoint, load_classifier, load_test
from odenet.training.export import Agreement
from sweep.__main__ import run
from sweep.cli.completion import candidates
from sweep.config.overrides import override
from sweep.records.outcome import Outcome
from sweep.records.rows import Phase, TrialRow
from sweep.records.tables import write_rows
from sweep.stages import export as stage
from tests.sweep.sweep_files import PARAMETERS, trial, write_sweep

TEST = load_test(DataConfig())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a sweep x whose final trial 3 diverged, and 4 is a network of an epoch; and one of dopri5."""
    place = tmp_path_factory.mktemp("export")
    dopri5 = {"model.network": "neural_ode", "model.scheme": None, "model.nodes": 1}
    for name, more in (("x", {}), ("adaptive", dopri5)):
        config = write_sweep(place / "runs", [trial(0, parameters=PARAMETERS)], name)
        rows = [trial(3, phase=Phase.final, outcome=Outcome.diverged), trial(4, phase=Phase.final, seed=11)]
        write_rows(place / "runs" / name / "final" / "trials.csv", TrialRow, rows)
        parameters = {**PARAMETERS, "training.epochs": 1, "refinement.count": 0, **more}
        training = Training(override(config.experiment, parameters), RuntimeConfig(device=Device.cpu))
        if not more:
            next(training)
        training.save(place / "runs" / name / "final" / "model-4.ckpt")
    return place


@pytest.fixture
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(place)
    return place / "runs" / "x" / "export"


@pytest.fixture
def expected(place: Path) -> np.ndarray:
    """The classes of the test images, by the checkpoint that is the champion."""
    return load_checkpoint(place / "runs/x/final/model-4.ckpt").classifier().predict(TEST.pixels_BCHW)


def unit() -> torch.Tensor:
    return torch.from_numpy(TEST.pixels_BCHW).float() / 255


def test_weights_are_written_by_default_and_read_back_with_all_that_belongs_to_them(here, expected, capsys) -> None:
    assert run(["export", "x"]) == 0
    said = capsys.readouterr().out
    assert "x.safetensors: final trial 4, seed 11" in said
    assert "Checked after writing: on 596 test images logits differ by 0 at most" in said
    assert sorted(file.name for file in here.iterdir()) == ["x.json", "x.safetensors"]
    read = load_classifier(here / "x.safetensors")
    assert np.array_equal(read.predict(TEST.pixels_BCHW), expected)
    assert (read.dataset, read.raw_range, read.training) == ("digits", (0, 16), False)
    assert read.experiment["data"]["per_class"] == 5


@pytest.mark.slow
def test_onnx_runtime_alone_answers_as_the_network(here, expected, capsys) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    assert run(["export", "x", "format=onnx"]) == 0
    assert "Checked after writing: on 596 test images logits differ by" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(here / "x.onnx")
    for count in (596, 1):
        (logits_BK,) = session.run(["logits"], {"images": unit()[:count].numpy()})
        assert np.array_equal(logits_BK.argmax(1), expected[:count])
    assert json.loads((here / "x.json").read_text())["input"]["name"] == "images"
    assert b"odenet/" not in (here / "x.onnx").read_bytes(), "no path of this machine leaves"


ALONE = """
import sys
import torch
run = torch.export.load(sys.argv[1]).module()
images = torch.load(sys.argv[2])
print(run(images).argmax(1).tolist(), len(run(images[:1])), [name for name in sys.modules if "odenet" in name])
"""


@pytest.mark.slow
def test_torch_alone_answers_as_the_network(here, expected, tmp_path) -> None:
    assert run(["export", "x", "export.format=pt2"]) == 0
    torch.save(unit(), tmp_path / "images")
    command = [sys.executable, "-P", "-c", ALONE, str(here / "x.pt2"), str(tmp_path / "images")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=True)
    assert done.stdout.strip() == f"{expected.tolist()} 1 []"
    assert b"odenet/" not in (here / "x.pt2").read_bytes(), "no path of this machine leaves"


def test_a_network_of_adaptive_steps_leaves_as_weights_only(here, capsys) -> None:
    for format in ("onnx", "pt2"):
        assert run(["export", "adaptive", f"format={format}"]) == 2
        assert f"format={format} with model.scheme=dopri5: its steps depend on the images" in capsys.readouterr().err
    assert run(["export", "adaptive"]) == 0


def test_what_is_another_network_once_written_is_not_kept(here, capsys, monkeypatch) -> None:
    before = {file: file.read_bytes() for file in here.iterdir()} if here.exists() else {}
    monkeypatch.setattr(stage, "agreement", lambda *_: Agreement(largest=3.5, scale=9.0, classes=40, n=596))
    assert run(["export", "x"]) == 1
    assert "is not kept, because it is another network once written: on 596 test images" in capsys.readouterr().err
    assert {file: file.read_bytes() for file in here.iterdir()} == before


def test_what_cannot_be_exported_is_said(here, capsys, monkeypatch, place) -> None:
    write_sweep(place / "runs", [trial(0)], "searched")
    assert run(["export", "searched"]) == 2
    assert "searched has no final network: run `sweep final searched` first" in capsys.readouterr().err
    assert run(["export", "x", "format=h5"]) == 2
    said = capsys.readouterr().err
    assert "export.format=h5" in said and "safetensors" in said
    monkeypatch.setitem(stage.NEEDED, stage.ExportFormat.onnx, ("no_such_library",))
    assert run(["export", "x", "format=onnx"]) == 2
    assert "format=onnx needs no_such_library: install it, or choose another format" in capsys.readouterr().err


def test_the_format_is_completed_by_its_own_name() -> None:
    assert candidates("sweep export x form") == ["format="]
    assert candidates("sweep export x format=") == ["format=safetensors", "format=onnx", "format=pt2"]
    assert candidates("sweep final x form") == []


def test_a_checkpoint_of_before_is_exported_with_the_normalisation_of_its_data(here, place, expected, capsys) -> None:
    from odenet import save_checkpoint

    file = place / "runs/x/final/model-4.ckpt"
    kept = file.read_bytes()
    save_checkpoint(file, replace(load_checkpoint(file), images=None))
    try:
        assert run(["export", "x"]) == 0
    finally:
        file.write_bytes(kept)
    assert np.array_equal(load_classifier(here / "x.safetensors").predict(TEST.pixels_BCHW), expected)
