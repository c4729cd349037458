"""Networks that leave: each format is written, read back, and agrees with the original; what cannot be is refused."""

import json
from pathlib import Path

import pytest
import torch

from odenet import (
    Classifier,
    Device,
    ExperimentConfig,
    ExportFormat,
    ModelConfig,
    Network,
    RuntimeConfig,
    Training,
    export_classifier,
    load_classifier,
)
from odenet.training.export import Agreement, agreement


def untrained(network: Network = Network.continuous, **more: object) -> Classifier:
    config = ExperimentConfig(model=ModelConfig(network=network, width=4, **more))
    return Training(config, RuntimeConfig(device=Device.cpu)).checkpoint().classifier()


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return untrained()


def test_a_written_network_answers_as_its_original_does(tmp_path: Path, classifier: Classifier) -> None:
    """The graphs, onnx and pt2, are tested as `sweep export` writes them: in tests/sweep/stages/test_export.py."""
    export_classifier(classifier, tmp_path / "mine.safetensors")
    found = agreement(classifier, tmp_path / "mine.safetensors", ExportFormat.safetensors, torch.rand(7, 1, 8, 8))
    assert (found.largest, found.classes, found.n, found.holds) == (0.0, 0, 7, True)
    said = json.loads((tmp_path / "mine.json").read_text())
    assert (said["images"]["labels"][3], said["input"]["shape"]) == ("3", ["batch", 1, 8, 8])
    assert said["about"]["experiment"]["model"]["width"] == 4


def test_a_network_whose_depth_has_changed_is_read_as_deep_as_it_was(tmp_path: Path, classifier: Classifier) -> None:
    deeper = classifier.manifest(scheme="rk4", steps=5)
    export_classifier(deeper, tmp_path / "deeper.safetensors")
    read, x_BCHW = load_classifier(str(tmp_path / "deeper.safetensors")), torch.rand(2, 1, 8, 8)
    assert read.network.depths() == deeper.network.depths()
    assert (read.images, read.about, read.training) == (deeper.images, deeper.about, False)
    assert torch.equal(read(x_BCHW), deeper(x_BCHW))


def test_steps_that_depend_on_the_images_are_refused_in_a_graph_and_written_as_weights(tmp_path: Path) -> None:
    adaptive = untrained(Network.neural_ode, nodes=1)
    for format in (ExportFormat.onnx, ExportFormat.pt2):
        message = (
            f"format={format.value} with model.scheme=dopri5: its steps depend on the images, .*format=safetensors"
        )
        with pytest.raises(ValueError, match=message):
            export_classifier(adaptive, tmp_path / "a", format)
    assert list(tmp_path.iterdir()) == []
    export_classifier(adaptive, tmp_path / "a.safetensors")
    assert agreement(adaptive, tmp_path / "a.safetensors", ExportFormat.safetensors, torch.rand(2, 1, 8, 8)).holds


@pytest.mark.parametrize("damage", ["the weights", "the description", "another kind", "another network"])
def test_files_that_are_something_else_are_refused(tmp_path: Path, classifier: Classifier, damage: str) -> None:
    path, beside = tmp_path / "x.safetensors", tmp_path / "x.json"
    export_classifier(classifier, path)
    said = json.loads(beside.read_text())
    if damage == "the weights":
        path.write_bytes(path.read_bytes()[:-9])
    elif damage == "the description":
        beside.write_text("{")
    elif damage == "another kind":
        beside.write_text(json.dumps({**said, "kind": "other"}))
    else:
        beside.write_text(json.dumps({**said, "model": {**said["model"], "width": 8}}))
    with pytest.raises(ValueError, match=r"x\.safetensors with x\.json is no exported network of this version: "):
        load_classifier(path)


def test_rounding_is_agreement_and_more_is_not() -> None:
    assert Agreement(1e-5, 20.0, 0, 5).holds
    assert not Agreement(0.5, 20.0, 0, 5).holds
    assert not Agreement(float("nan"), 1.0, 0, 5).holds
