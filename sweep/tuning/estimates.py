"""Estimate what trials cost before there are any: operations counted, a few iterations timed."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import assert_never

import torch

from odenet.data.subsets import Splits
from odenet.networks.refinement import refine
from odenet.training.config import ExperimentConfig
from odenet.training.cost import train_gflops
from odenet.training.footprint import training_mib
from odenet.training.gpu_load import GpuLoad, gpu_load
from odenet.training.loop import Training
from sweep.config.schema import AppConfig
from sweep.config.search_config import SchedulerKind, SearchConfig
from sweep.tuning.schedulers import bracket_shares, rungs

Expected = list[tuple[int, float]]  # up to an epoch, so many trials
ITERATIONS = 2  # of the dry run, after one that warms up


@dataclass(frozen=True, slots=True)
class Estimate:
    """The cost of one trial of a configuration: measured for two iterations, scaled by counted operations."""

    parameters: int
    gflops: list[float]  # of each epoch
    seconds_per_gflop: float
    memory_mib: float  # weights, gradients, momentum and what a batch saves, at the final depth
    gpu: GpuLoad | None  # where the dry run is on one
    graph_obstacle: str  # what keeps an iteration from being one CUDA graph; empty if nothing does

    def spent(self, course: Expected) -> float:
        """Sum up the GFLOP of all trials of a search that take this course."""
        begins, total = 0, 0.0
        for epoch, trials in course:
            total += trials * sum(self.gflops[begins:epoch])
            begins = epoch
        return total


def expected(search: SearchConfig, epochs: int) -> Expected:
    """Estimate how many trials are trained up to each rung and to the end, if results come in random order.

    Of asha and depth_asha one in `reduction` passes a rung, of hyperband in each of its brackets; the median rule is
    counted as if it stopped half of the trials after the grace. Populations train all their members.
    """
    unstopped = sum(search.is_random(number) for number in range(search.trials))
    ruled = search.trials - unstopped
    match search.scheduler:
        case SchedulerKind.none | SchedulerKind.pbt:
            return [(epochs, float(search.trials))]
        case SchedulerKind.median:
            ends, passing = [rungs(search, epochs)[0], epochs], [1, 1 / 2]
        case SchedulerKind.asha | SchedulerKind.depth_asha:
            ends = [*rungs(search, epochs), epochs]
            passing = [search.reduction**-rung for rung in range(len(ends))]
        case SchedulerKind.hyperband:
            ends = [*rungs(search, epochs), epochs]
            shares = list(enumerate(bracket_shares(len(ends) - 1, search.reduction)))
            passing = [
                sum(share / search.reduction ** max(0, rung - bracket) for bracket, share in shares)
                for rung in range(len(ends))
            ]
        case other:
            assert_never(other)
    return [(epoch, unstopped + ruled * share) for epoch, share in zip(ends, passing, strict=True)]


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Give torch as many threads as a trial has. One image keeps no more of them busy, and on a busy machine threads
    that wait for each other take three times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def estimate(experiment: ExperimentConfig, gflops: list[float], config: AppConfig, splits: Splits) -> Estimate:
    """Run the network at its final depth for a few iterations."""
    training = Training(experiment, config.runtime.for_training(), data=splits)
    for _ in range(experiment.refinement.times):
        training.change_depth(refine)
    _, channels, *space = splits.train.pixels_BCHW.shape
    shape = (channels, *space)
    seconds_per_gflop = _dry_run(training, train_gflops(training.model, shape))
    return Estimate(
        parameters=training.model.parameter_count,
        gflops=gflops,
        seconds_per_gflop=seconds_per_gflop,
        memory_mib=training_mib(training.model, shape, experiment.optim.batch_size),
        gpu=gpu_load(training) if next(training.model.parameters()).is_cuda else None,
        graph_obstacle=training.graph_obstacle,
    )


def _dry_run(training: Training, gflops_per_image: float) -> float:
    """Measure the seconds per GFLOP over `ITERATIONS` iterations."""
    images, started = 0, 0.0
    for iteration, (x_BCHW, labels_B) in enumerate(training.iterations(ITERATIONS + 1)):
        if iteration == 1:
            started = time.perf_counter()
        float(training.update(x_BCHW, labels_B, iteration))
        images += len(labels_B) if iteration else 0
    return (time.perf_counter() - started) / (images * gflops_per_image)
