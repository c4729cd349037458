"""An iteration on tensors that stay where they are, as a CUDA graph repeats it, is the iteration that it stands for."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from odenet.data.config import DataConfig
from odenet.enums import CudaGraphs, Device, Gradient, Network
from odenet.networks.model import build_model
from odenet.networks.model_config import ModelConfig
from odenet.training import loop
from odenet.training.config import ExperimentConfig, RuntimeConfig, TrainingConfig
from odenet.training.loop import Training
from odenet.training.optim_config import OptimConfig, OptimizerKind
from odenet.training.refinement_config import RefinementConfig
from odenet.training.regularization_config import RegularizationConfig
from odenet.training.step import StaticStep, graph_obstacle

FIXED_STEPS = [network for network in Network if network is not Network.neural_ode]
RANDOM = RegularizationConfig(smoothness=1e-3, stochastic_depth=0.5, noise=0.1)
CPU = RuntimeConfig(device=Device.cpu)


def experiment(network: Network, optimizer: OptimizerKind = OptimizerKind.sgd, **more: Any) -> ExperimentConfig:
    refined = RefinementConfig(count=1) if network is Network.continuous else RefinementConfig(count=0)
    return ExperimentConfig(
        data=DataConfig(per_class=5),
        model=ModelConfig(network=network, width=4, nodes=2, **more),
        training=TrainingConfig(epochs=4),
        optim=OptimConfig(optimizer=optimizer, lr=0.01, batch_size=16),  # 30 images: the last batch has 14
        refinement=refined,
        regularization=RANDOM,
    )


def trained(config: ExperimentConfig, epochs: int) -> tuple[Training, list[dict[str, float]]]:
    training = Training(config, CPU)
    reports = [next(training).metrics for _ in range(epochs)]
    return training, [{key: value for key, value in one.items() if key != "cost/seconds"} for one in reports]


def assert_static_is_eager(monkeypatch: pytest.MonkeyPatch, config: ExperimentConfig, epochs: int) -> None:
    eager, expected = trained(config, epochs)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "TrainStep", StaticStep)
        static, found = trained(config, epochs)
    assert found == expected, config.model
    for (name, here), there in zip(static.model.state_dict().items(), eager.model.state_dict().values(), strict=True):
        assert torch.equal(here, there), (config.model, name)
    kept, wanted = static.checkpoint().optimizer, eager.checkpoint().optimizer
    assert kept["param_groups"] == wanted["param_groups"]  # the learning rate is a number again


def test_static_steps_of_every_network_train_it_bit_for_bit_as_eager_ones(monkeypatch) -> None:
    for network in FIXED_STEPS:
        assert_static_is_eager(monkeypatch, experiment(network), epochs=1)


@pytest.mark.parametrize(("batch_size", "repeated"), [(64, [30, 30]), (16, [16, 16])])
def test_all_batches_but_a_smaller_last_one_are_repeated_also_where_one_is_the_whole_set(
    monkeypatch, batch_size, repeated
) -> None:
    found = list[int]()

    class Counted(StaticStep):
        def repeat(self) -> Tensor:
            found.append(len(self._x_BCHW))
            return super().repeat()

    config = experiment(Network.preact_resnet)
    assert_static_is_eager(monkeypatch, replace(config, optim=replace(config.optim, batch_size=batch_size)), epochs=1)
    monkeypatch.setattr(loop, "TrainStep", Counted)
    trained(replace(config, optim=replace(config.optim, batch_size=batch_size)), epochs=2)
    assert found == repeated


@pytest.mark.parametrize("optimizer", OptimizerKind)
def test_a_refinement_in_the_middle_makes_no_difference(monkeypatch, optimizer) -> None:
    config = experiment(Network.continuous, optimizer)
    assert config.refinement.due(4)
    assert_static_is_eager(monkeypatch, config, epochs=4)


@pytest.mark.parametrize("gradient", [Gradient.checkpointed, Gradient.reconstructed])
def test_recomputing_gradients_find_the_same_draws(monkeypatch, gradient) -> None:
    assert_static_is_eager(monkeypatch, experiment(Network.hamiltonian, gradient=gradient), epochs=1)


class Captured(TorchDispatchMode):
    """Refuse what a capture forbids: numbers for the host, and draws."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        assert not any(word in name for word in ("_local_scalar_dense", "aten::equal", "rand", "normal_")), name
        return func(*args, **(kwargs or {}))


def test_what_is_repeated_asks_the_host_nothing_and_draws_nothing() -> None:
    for network in FIXED_STEPS:
        training = Training(experiment(network), CPU)
        step = StaticStep(training.model, training.optimizer, training.config, training.model)
        ((x_BCHW, labels_B),) = training.iterations(1)
        step(x_BCHW, labels_B, 0.01, seed=1)
        places = [p.data_ptr() for p in training.model.parameters()]
        with Captured():
            step.repeat()
        assert [p.data_ptr() for p in training.model.parameters()] == places, network


@pytest.mark.parametrize(
    ("runtime", "model", "reason"),
    [
        ({}, {}, ""),
        ({"cuda_graphs": CudaGraphs.never}, {}, "runtime.cuda_graphs=never"),
        ({"device": Device.cpu}, {}, "it runs on no CUDA device"),
        ({"compile": True}, {}, "runtime.compile=true has graphs of its own"),
        ({"check_drift": True}, {}, "runtime.check_drift=true reads numbers between steps"),
        ({}, {"network": Network.neural_ode, "nodes": 1}, "the steps of an adaptive scheme depend on the data"),
        ({}, {"gradient": Gradient.checkpointed}, "recomputing steps with noise would keep the noise of all"),
    ],
)
def test_where_an_iteration_can_be_a_graph(monkeypatch, runtime, model, reason) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    config = ExperimentConfig(model=ModelConfig(**model), regularization=RANDOM)
    network = build_model(config.model, channels=1, classes=10)
    assert graph_obstacle(config, RuntimeConfig(**runtime), network) == reason
    if reason and "cuda_graphs" not in runtime:
        with pytest.raises(ValueError, match=f"cuda_graphs=always, but {reason}; auto and never are possible"):
            graph_obstacle(config, RuntimeConfig(cuda_graphs=CudaGraphs.always, **runtime), network)
