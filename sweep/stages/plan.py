"""`sweep plan`: check a configuration and what it costs, before anything is spent; write nothing, start no Ray."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import assert_never

import torch
from rich.console import Console
from rich.table import Table

from odenet.data.subsets import Splits
from odenet.networks.model import build_model
from odenet.networks.refinement import coarsen, refine
from odenet.training.config import ExperimentConfig
from odenet.training.cost import train_gflops
from odenet.training.footprint import training_mib
from odenet.training.gpu_load import MIB, GpuLoad, gpu_load
from odenet.training.loop import Training
from sweep.config.schema import AUTO, AppConfig
from sweep.config.search_config import SchedulerKind, SearchConfig
from sweep.console import say
from sweep.errors import InputError
from sweep.stages.search import prepare_new_search
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


def plan(config: AppConfig, console: Console) -> None:
    """Print trials x rungs x cost of the cheapest, a middle and the dearest configuration of the space, and each step
    before it is taken.

    Raises:
        InputError: the configuration, the data or the place for results is not usable.
    """
    prepared = prepare_new_search(config)
    splits, corners = prepared.splits, prepared.corners
    check_dry_run(config)
    check_writable(Path(config.runtime.runs_dir))
    images = f"{len(splits.train)} train, {len(splits.val) if splits.val else 0} val"
    console.print(f"Data: {config.data.name}, draw {config.data.draw}, {images} images, hash {splits.hash}")
    console.print(f"Space: {config.space.name}, {len(corners)} corners, all possible")
    say(f"Search: {_described(config)}", console)
    course = expected(config.search, config.training.epochs)
    say("Trials expected: " + "; ".join(f"{trials:.3g} to epoch {epoch}" for epoch, trials in course), console)
    console.print(f"Dry run: counts all corners' operations, times {ITERATIONS} iterations of three corners")
    with _threads(config.runtime.resources.cpus):
        estimates = _estimates(corners, config, splits)
    console.print(_table(estimates, course, config))
    for line in [*_budget(estimates, course, config), *_on_gpus(estimates, config)]:
        say(line, console)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Give torch as many threads as a trial has. One image keeps no more of them busy, and on a busy machine threads
    that wait for each other take three times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _estimates(corners: list[ExperimentConfig], config: AppConfig, splits: Splits) -> dict[str, Estimate]:
    costs = _counted(corners, splits)
    totals = [sum(cost) for cost in costs]
    chosen = {"cheapest": totals.index(min(totals)), "middle": 0, "dearest": totals.index(max(totals))}
    return {name: _estimate(corners[index], costs[index], config, splits) for name, index in chosen.items()}


def _counted(corners: list[ExperimentConfig], splits: Splits) -> list[list[float]]:
    """Count the GFLOP of each epoch of each corner; corners that differ in the optimizer, say, cost the same."""
    known: dict[str, list[float]] = {}
    for corner in corners:
        key = _network(corner)
        known[key] = known[key] if key in known else _epoch_gflops(corner, splits)
    return [known[_network(corner)] for corner in corners]


def _network(experiment: ExperimentConfig) -> str:
    """Write down all that decides which operations a network takes in which epoch."""
    return repr((experiment.model, experiment.refinement, experiment.training.epochs))


def _described(config: AppConfig) -> str:
    search = config.search
    share = f", {search.random_share:.0%} of them at random and unstopped" if search.random_share else ""
    return (
        f"{search.trials} trials x {config.training.epochs} epochs{share}, sampler {search.sampler.value}, scheduler "
        f"{search.scheduler.value}"
    )


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


def check_dry_run(config: AppConfig) -> None:
    """Raise InputError where runtime.device is not on this machine, wherever trials would run."""
    try:
        config.runtime.torch_device()
    except ValueError as error:
        raise InputError(f"{error} The dry run is on this machine.") from error


def check_writable(directory: Path) -> None:
    """Raise InputError where results could not be written: tried on the nearest directory that exists."""
    existing = next(parent for parent in [directory.resolve(), *directory.resolve().parents] if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise InputError(f"runtime.runs_dir={directory}: {existing} cannot be written to; choose another directory.")


def _epoch_gflops(experiment: ExperimentConfig, splits: Splits) -> list[float]:
    """Count the GFLOP of each epoch, with every refinement and the coarsening on its epoch."""
    _, channels, *space = splits.train.pixels_BCHW.shape
    model = build_model(experiment.model, channels=channels, classes=splits.classes)
    found, per_image = [], train_gflops(model, (channels, *space))
    due = experiment.refinement.due(experiment.training.epochs)
    coarsens = experiment.refinement.coarsens(experiment.training.epochs)
    for epoch in range(experiment.training.epochs):
        if epoch in due:
            refine(model)
        if epoch == coarsens:
            coarsen(model)
        if epoch in due or epoch == coarsens:
            per_image = train_gflops(model, (channels, *space))
        found.append(per_image * len(splits.train))
    return found


def _estimate(experiment: ExperimentConfig, gflops: list[float], config: AppConfig, splits: Splits) -> Estimate:
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


def _table(estimates: dict[str, Estimate], course: Expected, config: AppConfig) -> Table:
    at_once = config.search.concurrency or config.cluster.cpus or os.cpu_count() or 1
    at_once = max(1, at_once // config.runtime.resources.cpus) if config.search.concurrency is None else at_once
    retrained = config.final.top * config.final.confirm_seeds * (config.final.top > 1) + config.final.seeds
    table = Table(title=f"A trial, and the sweep if all were like it, {at_once} at a time on this machine")
    table.add_column("")
    for name in estimates:
        table.add_column(name, justify="right")
    table.add_row("parameters", *(f"{one.parameters:,}" for one in estimates.values()))
    table.add_row("memory, MiB", *(f"{one.memory_mib:,.0f}" for one in estimates.values()))
    table.add_row("trial GFLOP", *(f"{sum(one.gflops):,.1f}" for one in estimates.values()))
    table.add_row("trial seconds", *(f"{sum(one.gflops) * one.seconds_per_gflop:.1f}" for one in estimates.values()))
    for stage, spent in (
        ("search", [one.spent(course) for one in estimates.values()]),
        ("final", [retrained * sum(one.gflops) for one in estimates.values()]),
    ):
        seconds = [one.seconds_per_gflop * gflops for one, gflops in zip(estimates.values(), spent, strict=True)]
        table.add_row(f"{stage} GFLOP", *(f"{gflops:,.0f}" for gflops in spent))
        table.add_row(f"{stage} time", *(str(timedelta(seconds=round(one / at_once))) for one in seconds))
    return table


def _budget(estimates: dict[str, Estimate], course: Expected, config: AppConfig) -> Iterator[str]:
    """Say when a budget would end the search before its trials do."""
    limit = config.search.budget.gflops
    for name, one in estimates.items():
        if limit is not None and one.spent(course) > limit:
            trials = config.search.trials * limit / one.spent(course)
            yield f"search.budget.gflops={limit:g} is spent after about {trials:.0f} trials if all are like the {name}."


def _on_gpus(estimates: dict[str, Estimate], config: AppConfig) -> Iterator[str]:
    """Say whether iterations are CUDA graphs, and how many trials to put on a GPU; of the CPU only what was asked."""
    for name, one in estimates.items():
        if one.gpu is None:
            continue
        graph = f"no CUDA graph, because {one.graph_obstacle}" if one.graph_obstacle else "a CUDA graph"
        total_mib = torch.cuda.get_device_properties(0).total_memory / MIB
        most = max(1, (os.cpu_count() or 1) // config.runtime.resources.cpus)
        count = one.gpu.trials_on(total_mib, most)
        yield (
            f"The {name}: an iteration is {graph} and takes {one.gpu.step_ms:.1f} ms, of which the GPU works "
            f"{one.gpu.busy:.0%}, and {one.gpu.memory_mib:,.0f} MiB: {count} to a GPU would be runtime.resources.gpus="
            f"{1 / count:.4g}."
        )
    if config.runtime.resources.gpus == AUTO and not any(one.gpu for one in estimates.values()):
        yield (
            "runtime.resources.gpus=auto: there is no GPU here to measure on. A sweep measures it on a GPU of its "
            "cluster before trials begin; where there is none, trials get none."
        )
