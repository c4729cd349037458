"""Training: one stream of reports, reproducible and resumable bit for bit."""

import hashlib
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from odenet import (
    Basis,
    DataConfig,
    Device,
    Diverged,
    ExperimentConfig,
    Gradient,
    ModelConfig,
    Network,
    OptimConfig,
    OptimizerKind,
    Portion,
    Precision,
    RefinementConfig,
    RegularizationConfig,
    Report,
    RuntimeConfig,
    Scheme,
    Training,
    TrainingConfig,
    evaluate,
    load_checkpoint,
    load_data,
)
from odenet.training.optim import learning_rate
from odenet.training.optim_config import Schedule

CPU = RuntimeConfig(device=Device.cpu)
SGD = ExperimentConfig(
    model=ModelConfig(width=2, nodes=1),
    data=DataConfig(per_class=5),  # 3 to train, 2 to validate in each of 10 classes
    optim=OptimConfig(batch_size=8),
    refinement=RefinementConfig(count=1, first=0.5),
    training=TrainingConfig(epochs=4),
)
ADAMW = replace(
    SGD,
    model=ModelConfig(width=2, basis=Basis.hat, scheme=Scheme.heun),
    optim=OptimConfig(optimizer=OptimizerKind.adamw, lr=0.01, batch_size=8),
)
# Walked back through its steps, with noise, refined and coarsened.
HAMILTONIAN = replace(
    SGD,
    model=ModelConfig(network=Network.hamiltonian, width=4, nodes=2, gradient=Gradient.reconstructed),
    refinement=RefinementConfig(count=1, first=0.25, coarsen=0.75),
    regularization=RegularizationConfig(smoothness=1e-3, stochastic_depth=0.2, noise=0.1),
)
LM = replace(SGD, model=ModelConfig(network=Network.lm_resnet, width=2), refinement=RefinementConfig())
# Nodes of the last stage in each epoch.
NODES = {"sgd": [1, 1, 2, 2], "adamw": [2, 2, 3, 3], "hamiltonian": [1, 2, 2, 1], "lm": [2, 2, 2, 2]}
CONFIGS = {"sgd": SGD, "adamw": ADAMW, "hamiltonian": HAMILTONIAN, "lm": LM}


def comparable(report: Report) -> Report:
    return replace(report, metrics={k: v for k, v in report.metrics.items() if k != "cost/seconds"})


def weights(training: Training) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in training.model.state_dict().items()}


def fingerprint(training: Training) -> str:
    digest = hashlib.sha256()
    for tensor in training.model.state_dict().values():
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


@dataclass
class Uninterrupted:
    name: str
    config: ExperimentConfig
    checkpoints: list[Path]  # after 0, 1, ... epochs
    reports: list[Report]
    weights: dict[str, Tensor]


@pytest.fixture(scope="module", params=CONFIGS)
def uninterrupted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Uninterrupted:
    folder = tmp_path_factory.mktemp("checkpoints")
    config = CONFIGS[request.param]
    training, reports, paths = Training(config, CPU), [], [folder / "0"]
    training.save(paths[0])
    for report in training:
        reports.append(comparable(report))
        paths.append(folder / str(report.epoch))
        training.save(paths[-1])
    return Uninterrupted(request.param, config, paths, reports, weights(training))


@pytest.mark.parametrize("epoch", range(5))
def test_resumed_equals_uninterrupted_bit_for_bit(uninterrupted: Uninterrupted, epoch: int) -> None:
    torch.manual_seed(epoch)  # what else happened in this process must not matter
    torch.rand(epoch)
    resumed = Training(uninterrupted.config, CPU, checkpoint=load_checkpoint(uninterrupted.checkpoints[epoch]))
    assert resumed.epoch == epoch
    assert (resumed.last and comparable(resumed.last)) == (uninterrupted.reports[epoch - 1] if epoch else None)
    assert [comparable(report) for report in resumed] == uninterrupted.reports[epoch:]
    mine = weights(resumed)
    assert list(mine) == list(uninterrupted.weights)
    assert all(torch.equal(mine[name], uninterrupted.weights[name]) for name in mine)


def test_the_last_report_is_kept_and_comes_back_from_a_checkpoint_as_it_was(tmp_path: Path) -> None:
    training = Training(SGD, CPU)
    assert training.last is None
    report = next(training)
    assert training.last == report
    training.save(tmp_path / "checkpoint")
    read = load_checkpoint(tmp_path / "checkpoint")
    assert Training(SGD, CPU, checkpoint=read).last == report  # the seconds, too
    older = replace(read, progress={key: value for key, value in read.progress.items() if key != "last"})
    resumed = Training(SGD, CPU, checkpoint=older)
    assert resumed.last is None
    assert [comparable(one) for one in resumed] == [comparable(one) for one in training]


def test_a_checkpoint_carries_the_reports_of_all_epochs_so_that_a_lost_curve_can_be_written_again(
    uninterrupted: Uninterrupted,
) -> None:
    for epoch, file in enumerate(uninterrupted.checkpoints):
        resumed = Training(uninterrupted.config, CPU, checkpoint=load_checkpoint(file))
        assert [comparable(report) for report in resumed.reports] == uninterrupted.reports[:epoch]
        assert len(list(resumed)) == len(uninterrupted.reports) - epoch
        assert [comparable(report) for report in resumed.reports] == uninterrupted.reports


def test_the_reports_say_what_was_done(uninterrupted: Uninterrupted) -> None:
    reports = uninterrupted.reports
    expected = {"train/loss", "val/loss", "val/accuracy", "objective", "cost/train_gflops", "cost/rate_evaluations"}
    assert [set(report.metrics) for report in reports] == [expected | {"depth/steps", "depth/nodes"}] * 4
    assert [report.epoch for report in reports] == [1, 2, 3, 4]
    assert [report.metrics["depth/nodes"] for report in reports] == NODES[uninterrupted.name]
    accuracies = [report.metrics["val/accuracy"] for report in reports]
    assert reports[-1].metrics["objective"] == sum(accuracies) / 4


@pytest.mark.slow
def test_a_new_process_trains_the_same_network_as_this_used_one() -> None:
    training = Training(ADAMW, CPU)
    list(training)
    code = (
        "import torch; torch.set_num_threads(1); from tests.odenet.training.test_training import *; "
        "t = Training(ADAMW, CPU); list(t); print(fingerprint(t))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.strip() == fingerprint(training)


def test_another_seed_trains_another_network() -> None:
    config = replace(SGD, training=TrainingConfig(epochs=4, seed=1))
    one, other = Training(SGD, CPU), Training(config, CPU)
    assert next(one).metrics["train/loss"] != next(other).metrics["train/loss"]


def test_a_checkpoint_of_another_experiment_is_refused(uninterrupted: Uninterrupted) -> None:
    other = replace(uninterrupted.config, training=TrainingConfig(epochs=4, seed=1))
    with pytest.raises(ValueError, match=r"^The checkpoint is of another experiment: its config differs from the one"):
        Training(other, CPU, checkpoint=load_checkpoint(uninterrupted.checkpoints[1]))


def test_the_objective_is_the_mean_validation_accuracy_of_the_last_five_epochs(tmp_path: Path) -> None:
    config = replace(SGD, refinement=RefinementConfig(), training=TrainingConfig(epochs=8))
    training, seen = Training(config, CPU), []
    for _ in range(6):
        seen.append(next(training).metrics)
    training.save(tmp_path / "checkpoint")
    seen += [r.metrics for r in Training(config, CPU, checkpoint=load_checkpoint(tmp_path / "checkpoint"))]
    accuracies = [metrics["val/accuracy"] for metrics in seen]
    assert len(set(accuracies)) > 2
    for epoch, metrics in enumerate(seen, 1):
        last = accuracies[max(0, epoch - 5) : epoch]
        assert metrics["objective"] == pytest.approx(sum(last) / len(last), abs=1e-12)


def test_learning_from_train_and_validation_reports_no_validation() -> None:
    config = replace(SGD, data=replace(SGD.data, portion=Portion.trainval))
    training = Training(config, CPU)
    assert len(training.train_batches) == 50
    assert not [name for name in next(training).metrics if name.startswith("val/") or name == "objective"]


@pytest.mark.parametrize("batch_size", [8, 64])  # with one batch an epoch the training loss is of the time before
@pytest.mark.parametrize("portion", Portion)
def test_a_loss_that_is_not_finite_ends_training_unreported(batch_size: int, portion: Portion) -> None:
    optim = replace(SGD.optim, lr=1e20, batch_size=batch_size)
    config = replace(SGD, optim=optim, data=replace(SGD.data, portion=portion))
    training = Training(config, CPU)
    reports: list[Report] = []
    with pytest.raises(Diverged, match=r"^the (training|validation) loss is (nan|inf) in epoch \d$"):
        reports += training
    assert len(reports) == training.epoch
    assert all(torch.tensor(value).isfinite() for report in reports for value in report.metrics.values())


def test_bf16_keeps_weights_and_statistics_in_fp32_and_the_loss_near() -> None:
    coarse = Training(replace(SGD, training=replace(SGD.training, precision=Precision.bf16)), CPU)
    exact, rounded = next(Training(SGD, CPU)).metrics, next(coarse).metrics
    assert rounded["train/loss"] != exact["train/loss"]
    assert rounded["train/loss"] == pytest.approx(exact["train/loss"], rel=0.1)
    list(coarse)
    tensors = [tensor for tensor in coarse.model.state_dict().values() if tensor.is_floating_point()]
    assert {tensor.dtype for tensor in tensors} == {torch.float32}
    assert all(bool(tensor.isfinite().all()) for tensor in tensors)


@pytest.mark.slow
def test_compiled_training_is_one_graph_and_near_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    # Generating C++ takes a minute for the smallest network on one core; here the captured graph is run as it is.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager", fullgraph=True))
    config = replace(SGD, model=replace(SGD.model, scheme=Scheme.heun))
    eager, compiled = Training(config, CPU), Training(config, replace(CPU, compile=True))
    # A compiler has a batch norm of its own, which rounds otherwise, and training is chaotic: the first epoch is near.
    assert next(compiled).metrics["train/loss"] == pytest.approx(next(eager).metrics["train/loss"], rel=1e-2)


def test_cuda_where_there_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"^runtime\.device=cuda, but torch sees no CUDA device here; auto and cpu"):
        Training(SGD, RuntimeConfig(device=Device.cuda))
    assert RuntimeConfig(device=Device.auto).torch_device() == torch.device("cpu")


def test_a_dry_run_takes_as_many_batches_as_asked_across_epochs() -> None:
    batches = list(Training(SGD, CPU).iterations(6))
    assert [len(labels) for _, labels in batches] == [8, 8, 8, 6, 8, 8]


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        (Schedule.constant, [1, 1, 1, 1]),
        (Schedule.step, [1, 1, 0.1, 0.01]),
        (Schedule.cosine, [1, 0.8536, 0.5, 0.1464]),
    ],
)
def test_the_learning_rate_falls_as_scheduled(schedule: Schedule, rates: list[float]) -> None:
    config = OptimConfig(lr=1.0, schedule=schedule)
    assert [learning_rate(config, k / 4) for k in range(4)] == pytest.approx(rates, abs=1e-4)


# Evaluation


def test_evaluation_scores_every_image_once_and_leaves_the_model_as_it_was() -> None:
    training = Training(SGD, CPU)
    model, batches = training.model, training.train_batches
    model.train()
    model.head.eval()
    modes, before = [module.training for module in model.modules()], weights(training)
    score = evaluate(model, batches, batch_size=7)
    assert [module.training for module in model.modules()] == modes
    after = weights(training)
    assert all(torch.equal(after[name], before[name]) for name in before)
    ((x_BCHW, labels_B),) = batches.ordered(30)
    with torch.no_grad():
        logits_BK = model.eval()(x_BCHW)
    assert score.n == 30
    assert score.accuracy == float((logits_BK.argmax(1) == labels_B).double().mean())
    assert score.loss == pytest.approx(float(F.cross_entropy(logits_BK, labels_B)), rel=1e-5)


def test_training_does_not_touch_data_it_was_handed() -> None:
    data = load_data(SGD.data)
    before = data.train.pixels_BCHW.copy()
    handed, loaded = Training(SGD, CPU, data=data), Training(SGD, CPU)
    assert [comparable(report) for report in handed] == [comparable(report) for report in loaded]
    assert (data.train.pixels_BCHW == before).all()
