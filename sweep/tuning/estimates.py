"""Estimate what trials cost before there are any: operations counted, a few iterations timed."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from odenet.data.subsets import Splits
from odenet.networks.refinement import refine
from odenet.training.config import ExperimentConfig
from odenet.training.cost import train_gflops
from odenet.training.footprint import training_mib
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
    if search.scheduler in (SchedulerKind.none, SchedulerKind.pbt):
        return [(epochs, float(search.trials))]
    if search.scheduler is SchedulerKind.median:
        return [(rungs(search, epochs)[0], float(search.trials)), (epochs, unstopped + ruled / 2)]
    ends = [*rungs(search, epochs), epochs]
    if search.scheduler is SchedulerKind.hyperband:
        shares = bracket_shares(len(ends) - 1, search.reduction)
        passing = [
            sum(share / search.reduction ** max(0, rung - bracket) for bracket, share in enumerate(shares))
            for rung in range(len(ends))
        ]
    else:
        passing = [search.reduction**-rung for rung in range(len(ends))]
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
        refine(training.model, training.optimizer)
    _, channels, *space = splits.train.pixels_BCHW.shape
    shape = (channels, *space)
    seconds_per_gflop = _dry_run(training, train_gflops(training.model, shape))
    memory_mib = training_mib(training.model, shape, experiment.optim.batch_size)
    return Estimate(training.model.parameter_count, gflops, seconds_per_gflop, memory_mib)


def _dry_run(training: Training, gflops_per_image: float) -> float:
    """Measure the seconds per GFLOP over `ITERATIONS` iterations."""
    images, started = 0, 0.0
    for iteration, (x_BCHW, labels_B) in enumerate(training.iterations(ITERATIONS + 1)):
        if iteration == 1:
            started = time.perf_counter()
        float(training.update(x_BCHW, labels_B, iteration))
        images += len(labels_B) if iteration else 0
    return (time.perf_counter() - started) / (images * gflops_per_image)
