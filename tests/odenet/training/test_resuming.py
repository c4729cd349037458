"""A trial that is cut and goes on in another process, where others ran before it, ends as if it had not been cut."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from odenet import (
    Augment,
    Basis,
    Checkpoint,
    DataConfig,
    ExperimentConfig,
    Gradient,
    ModelConfig,
    Network,
    OptimConfig,
    OptimizerKind,
    RefinementConfig,
    RegularizationConfig,
    Scheme,
    Training,
    TrainingConfig,
    load_checkpoint,
)
from tests.odenet.training.test_checkpoint import equal
from tests.odenet.training.test_training import CPU

# Everything that draws or carries state, and refinements on both sides of a cut after the second epoch.
SGD = ExperimentConfig(
    model=ModelConfig(width=2, nodes=1, scheme=Scheme.midpoint),
    data=DataConfig(per_class=5, augment=Augment.standard),
    optim=OptimConfig(batch_size=8, momentum=0.9, nesterov=True),
    refinement=RefinementConfig(at=[1, 3]),
    regularization=RegularizationConfig(smoothness=1e-3, stochastic_depth=0.3, noise=0.1),
    training=TrainingConfig(epochs=4, seed=3),
)
TRIALS = {
    "sgd": SGD,
    "adamw": replace(
        SGD,
        model=ModelConfig(width=2, nodes=2, basis=Basis.hat, scheme=Scheme.heun, gradient=Gradient.checkpointed),
        optim=OptimConfig(optimizer=OptimizerKind.adamw, lr=0.01, batch_size=8),
    ),
    "hamiltonian": replace(
        SGD, model=ModelConfig(network=Network.hamiltonian, width=4, nodes=2, gradient=Gradient.reconstructed)
    ),
}
CUTS = (1, 2, 3)


def finish(folder: Path) -> None:
    """What the other process does: one trial after another goes on, each from each of its checkpoints."""
    torch.manual_seed(99)
    for name, config in TRIALS.items():
        for cut in CUTS:
            torch.rand(7)
            training = Training(config, CPU, checkpoint=load_checkpoint(folder / f"{name}-{cut}"))
            list(training)
            training.save(folder / f"{name}-{cut}-end")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trials")
    for name, config in TRIALS.items():
        training = Training(config, CPU)
        for report in training:
            training.save(folder / f"{name}-{report.epoch}")
    code = (
        "import torch; torch.set_num_threads(1); from tests.odenet.training.test_resuming import *; "
        f"finish(Path({str(folder)!r}))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], timeout=120, check=True)
    return folder


def timeless(checkpoint: Checkpoint) -> dict[str, Any]:
    """All of its content but the wall clock."""
    content: dict[str, Any] = {name: getattr(checkpoint, name) for name in Checkpoint.__slots__}
    progress = content["progress"]
    last, *earlier = (_timeless_report(report) for report in (progress["last"], *progress["earlier"]))
    return {**content, "progress": {**progress, "seconds": 0.0, "last": last, "earlier": earlier}}


def _timeless_report(report: dict[str, Any]) -> dict[str, Any]:
    metrics = {key: value for key, value in report["metrics"].items() if key != "cost/seconds"}
    return {**report, "metrics": metrics}


@pytest.mark.slow
@pytest.mark.parametrize("name", TRIALS)
@pytest.mark.parametrize("cut", CUTS)
def test_a_trial_that_goes_on_in_a_used_process_ends_bit_for_bit_as_uninterrupted(
    name: str, cut: int, folder: Path
) -> None:
    resumed, whole = load_checkpoint(folder / f"{name}-{cut}-end"), load_checkpoint(folder / f"{name}-4")
    assert equal(timeless(resumed), timeless(whole))


@pytest.mark.parametrize("name", TRIALS)
def test_the_trials_are_refined_before_and_after_the_cut(name: str, folder: Path) -> None:
    nodes = [load_checkpoint(folder / f"{name}-{epoch}").depths[-1].nodes for epoch in (1, 2, 3, 4)]
    assert nodes[0] < nodes[1] == nodes[2] < nodes[3]
