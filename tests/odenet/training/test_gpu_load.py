"""How many trainings share a GPU: by the time in which it works, and by its memory."""

import pytest
import torch

from odenet.enums import Device
from odenet.training.config import ExperimentConfig, RuntimeConfig
from odenet.training.gpu_load import GpuLoad, gpu_load
from odenet.training.loop import Training


@pytest.mark.parametrize(
    ("busy", "memory_mib", "total_mib", "most", "expected"),
    [
        (0.25, 300, 80_000, 16, 4),
        (1.0, 300, 80_000, 16, 1),  # the card has no time left
        (0.02, 300, 80_000, 16, 16),  # no more than the CPUs allow
        (0.0, 300, 80_000, 16, 16),
        (0.1, 300, 4_000, 16, 4),  # 4,000 / (1.2 * 300 + 512)
        (0.1, 90_000, 80_000, 16, 1),  # a trial alone may still find room
    ],
)
def test_as_many_as_keep_the_gpu_busy_fit_as_far_as_its_memory_goes(busy, memory_mib, total_mib, most, expected):
    assert GpuLoad(10.0, busy, memory_mib).trials_on(total_mib, most) == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_training_is_measured_on_the_gpu():
    load = gpu_load(Training(ExperimentConfig(), RuntimeConfig(device=Device.cuda)))
    assert load.step_ms > 0 and 0 < load.busy <= 1 and load.memory_mib > 0
