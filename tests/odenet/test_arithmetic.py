"""What a GPU rounds is decided by training.precision alone, in forward and backward passes, and is on record."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from odenet import DataConfig, Device, ExperimentConfig, ModelConfig, Precision, RuntimeConfig, Training, TrainingConfig
from odenet.arithmetic import CONVOLUTIONS, MATRICES, recorded

CPU = RuntimeConfig(device=Device.cpu)
SMALL = ExperimentConfig(
    data=DataConfig(per_class=5), model=ModelConfig(width=2, nodes=1), training=TrainingConfig(epochs=1)
)


def flags() -> tuple[str, str]:
    return CONVOLUTIONS.fp32_precision, MATRICES.fp32_precision


@pytest.mark.parametrize("precision", Precision)
def test_an_iteration_rounds_as_its_precision_says_and_leaves_torchs_flags_as_they_were(precision: Precision) -> None:
    training = Training(replace(SMALL, training=replace(SMALL.training, precision=precision)), CPU)
    before, forward, backward = flags(), set[tuple[str, str]](), set[tuple[str, str]]()

    def watch(module: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if module.training:
            inputs[0].requires_grad_().register_hook(lambda _: backward.add(flags()))
        (forward if module.training else evaluated).add(flags())

    evaluated = set[tuple[str, str]]()
    training.model.register_forward_pre_hook(watch)
    next(training)
    expected = "ieee" if precision is Precision.fp32 else "tf32"
    assert forward == backward == {(expected, expected)}
    assert evaluated == {("ieee", "ieee")}  # networks are measured alike, however they were trained
    assert flags() == before


def test_on_a_cpu_tf32_is_fp32() -> None:
    exact, same = (
        Training(replace(SMALL, training=replace(SMALL.training, precision=precision)), CPU)
        for precision in (Precision.fp32, Precision.tf32)
    )
    losses = [{**next(one).metrics, "cost/seconds": 0.0} for one in (exact, same)]
    assert losses[0] == losses[1]


def test_a_checkpoint_records_the_device_and_on_a_gpu_its_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Training(SMALL, CPU).checkpoint().classifier().versions["device"] == "cpu"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H100")
    found = recorded(torch.device("cuda"), Precision.bf16)
    assert found["device"] == "NVIDIA H100" and found["fp32 products"] == "tf32"
    assert (found["cudnn.benchmark"], found["deterministic"]) == ("false", "false")
    assert found["cuda graph"] == "an iteration"
    without = recorded(torch.device("cuda"), Precision.bf16, "runtime.cuda_graphs=never")
    assert without["cuda graph"] == "none, because runtime.cuda_graphs=never"
    assert all(isinstance(value, str) for value in found.values())
