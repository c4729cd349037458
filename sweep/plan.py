"""`sweep plan`: checks a configuration and what it costs, before anything is spent; writes nothing, starts no Ray."""

import os
import resource
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from odenet.config import ExperimentConfig
from odenet.cost import train_gflops
from odenet.data import Splits
from odenet.models import build_model
from odenet.refinement import coarsen, refine
from odenet.training import Training
from sweep.config import AppConfig, override
from sweep.errors import InputError
from sweep.search import check

ITERATIONS = 2  # of the dry run, after one that warms up


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one trial of a configuration takes: measured for two iterations, scaled by counted operations."""

    parameters: int
    gflops: float  # of the whole trial, refinements included
    seconds: float
    memory_mib: float  # peak of the process, or of the GPU


def plan(config: AppConfig, console: Console) -> None:
    """Prints trials x epochs x cost of the cheapest, the default and the dearest configuration of the space.

    Raises:
        InputError: the configuration, the data or the place for results is not usable.
    """
    splits = check(config)
    check_dry_run(config)
    check_writable(Path(config.runtime.runs_dir))
    space, search = config.space.build(), config.search
    corners = space.corners()
    costs = [_epoch_gflops(override(config.experiment, corner), splits) for corner in corners]
    cheapest, dearest = (corners[costs.index(extreme(costs))] for extreme in (min, max))
    estimates = {
        "cheapest": _estimate(override(config.experiment, cheapest), config, splits),
        "dearest": _estimate(override(config.experiment, dearest), config, splits),
    }
    images = f"{len(splits.train)} train, {len(splits.val) if splits.val else 0} val"
    console.print(f"Data: {config.data.dataset.value}, draw {config.data.draw}, {images} images, hash {splits.hash}")
    console.print(f"Space: {config.space.name}, {len(corners)} corners, all possible")
    console.print(
        f"Search: {search.trials} trials x {config.training.epochs} epochs, sampler {search.sampler.value}, "
        f"scheduler {search.scheduler.value}"
    )
    console.print(_table(estimates, search.trials))


def check_dry_run(config: AppConfig) -> None:
    """Raises InputError where runtime.device is not on this machine, wherever trials would run."""
    try:
        config.runtime.torch_device()
    except ValueError as error:
        raise InputError(f"{error} The dry run is on this machine.") from error


def check_writable(directory: Path) -> None:
    """Raises InputError where results could not be written: tried on the nearest directory that exists."""
    existing = next(parent for parent in [directory.resolve(), *directory.resolve().parents] if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise InputError(f"runtime.runs_dir={directory}: {existing} cannot be written to; choose another directory.")


def _epoch_gflops(experiment: ExperimentConfig, splits: Splits) -> float:
    """Of all epochs, with every refinement and the coarsening on its epoch."""
    _, channels, *space = splits.train.pixels_BCHW.shape
    model = build_model(experiment.model, channels=channels, classes=splits.classes)
    total, per_image = 0.0, train_gflops(model, (channels, *space))
    due = experiment.refinement.due(experiment.training.epochs)
    coarsens = experiment.refinement.coarsens(experiment.training.epochs)
    for epoch in range(experiment.training.epochs):
        if epoch in due:
            refine(model)
        if epoch == coarsens:
            coarsen(model)
        if epoch in due or epoch == coarsens:
            per_image = train_gflops(model, (channels, *space))
        total += per_image * len(splits.train)
    return total


def _estimate(experiment: ExperimentConfig, config: AppConfig, splits: Splits) -> Estimate:
    """A dry run of the network at its final depth, scaled to the whole trial by floating-point operations."""
    threads = torch.get_num_threads()
    torch.set_num_threads(config.runtime.resources.cpus)
    training = Training(experiment, config.runtime.for_training(), data=splits)
    for _ in range(experiment.refinement.count):
        refine(training.model, training.optimizer)
    _, channels, *space = splits.train.pixels_BCHW.shape
    per_image = train_gflops(training.model, (channels, *space))
    seconds_per_gflop = _dry_run(training, per_image)
    torch.set_num_threads(threads)
    gflops = _epoch_gflops(experiment, splits)
    return Estimate(training.model.parameter_count, gflops, gflops * seconds_per_gflop, _peak_mib())


def _dry_run(training: Training, gflops_per_image: float) -> float:
    """Seconds per GFLOP over `ITERATIONS` iterations."""
    images, started = 0, 0.0
    for iteration, (x_BCHW, labels_B) in enumerate(training.iterations(ITERATIONS + 1)):
        if iteration == 1:
            started = time.perf_counter()
        float(training.update(x_BCHW, labels_B, iteration))
        images += len(labels_B) if iteration else 0
    return (time.perf_counter() - started) / (images * gflops_per_image)


def _peak_mib() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def _table(estimates: dict[str, Estimate], trials: int) -> Table:
    table = Table(title="A trial, and the sweep if all were like it (one after another)")
    for column in ("configuration", "parameters", "GFLOP", "seconds", "peak MiB", "sweep GFLOP", "sweep time"):
        table.add_column(column, justify="left" if column == "configuration" else "right")
    for name, one in estimates.items():
        sweep_time = timedelta(seconds=round(one.seconds * trials))
        numbers = (f"{one.parameters:,}", f"{one.gflops:,.1f}", f"{one.seconds:.1f}", f"{one.memory_mib:,.0f}")
        table.add_row(name, *numbers, f"{one.gflops * trials:,.0f}", str(sweep_time))
    return table
