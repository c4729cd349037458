"""What one training takes of a GPU, and how many such trainings share it well."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from odenet.training.loop import Training

MIB = 2**20
WARMING, TIMED, PROFILED = 8, 30, 10  # iterations: kernels are chosen and a graph is captured, then each is measured
SPARE = 1.2  # times the memory that was measured: batches differ, and memory falls to pieces
CONTEXT_MIB = 512.0  # that CUDA takes for every process, about


@dataclass(frozen=True, slots=True)
class GpuLoad:
    """The load that a training puts on a GPU."""

    step_ms: float
    busy: float  # the part of this time in which the GPU works, from 0 to 1
    memory_mib: float  # the most that torch has asked for, without CUDA's context

    def trials_on(self, total_mib: float, most: int) -> int:
        """Return how many such trainings to put on a GPU of this memory: as many as it takes to keep it busy, as far as
        its memory goes, at least one and no more than `most`.

        >>> GpuLoad(step_ms=12.0, busy=0.25, memory_mib=300.0).trials_on(80_000, most=16)
        4
        """
        by_memory = int(total_mib / (SPARE * self.memory_mib + CONTEXT_MIB))
        return max(1, min(round(1 / max(self.busy, 1 / most)), by_memory, most))


def gpu_load(training: Training) -> GpuLoad:
    """Measure what a training takes of its GPU, in some iterations, after which it is not the same."""
    device = next(training.model.parameters()).device
    torch.cuda.reset_peak_memory_stats(device)
    batches = training.iterations(WARMING + TIMED + PROFILED)
    _step_ms(training, batches, WARMING)
    step_ms = _step_ms(training, batches, TIMED)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        _step_ms(training, batches, PROFILED)
    busy_ms = sum(one.self_device_time_total for one in profile.key_averages()) / 1000 / PROFILED
    return GpuLoad(step_ms, min(1.0, busy_ms / step_ms), torch.cuda.max_memory_reserved(device) / MIB)


def _step_ms(training: Training, batches: Iterator[tuple[Tensor, Tensor]], count: int) -> float:
    torch.cuda.synchronize()
    started = time.perf_counter()
    for iteration, (x_BCHW, labels_B) in enumerate(islice(batches, count)):
        training.update(x_BCHW, labels_B, iteration)
    torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - started) / count
